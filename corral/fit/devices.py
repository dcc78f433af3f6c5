"""The device of each tensor: llama.cpp's rules for layers, overrides and several GPUs.

Source: load_tensors of llama-model.cpp and create_tensor of llama-model-loader.cpp, llama.cpp at
0c1e57098bba; for split mode graph llama-load-tensors.cpp, ik_llama.cpp at 8337e4cd3861. Devices
are numbered 0..n-1 within the instance's GPUs; HOST is the host's memory.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

from corral.catalog.patterns import compiled
from corral.catalog.profile import SplitMode
from corral.fit.tensor_split import TensorSplit
from corral.plan.placement import ResolvedPlacement

HOST = -1
# common.h of llama.cpp: LLM_FFN_EXPS_REGEX, with the number of the block before it.
_EXPERTS = re.compile(r"blk\.[0-9]+\.ffn_(up|down|gate|gate_up)_(ch|)exps")
_BLOCK = re.compile(r"blk\.([0-9]+)\.")
# Modes that split each matrix; the others assign whole layers to a GPU.
_CUTTING_MODES = ("row", "tensor", "graph")
# In mode graph each GPU has its own copy of the expert routers, as of the vectors.
_ROUTER = ".ffn_gate_inp."


# The devices of all blocks and of the output layer, and the blocks whose experts are on the host,
# from a placement, the shares of the GPUs, and the devices if layers are divided by their number.
LayerRule = Callable[
    [ResolvedPlacement, Sequence[float], Sequence[int]], tuple[tuple[int, ...], frozenset[int]]
]


class UnknownDeviceError(Exception):
    """An override names an unknown buffer. The text is one sentence."""


@dataclass(frozen=True, slots=True)
class Devices:
    """A placement on the GPUs of an instance.

    + shares: share of each GPU, adding up to 1; empty when nothing is on them
    + of_blocks: the device of each block and, last, of the output layer
    + cuts_matrices: each GPU holds a part of every matrix
    + cuts_output: and of the output layer, which all GPUs then compute
    + is_pipeline: GPUs work on several batches at a time, each on its own layers
    + host_expert_blocks: blocks whose experts --n-cpu-moe keeps in host memory
    + overrides_first: the overrides win over it
    + parts: what each GPU has of a tensor in split mode tensor; None for its share of all matrices
    """

    placement: ResolvedPlacement
    shares: tuple[float, ...]
    of_blocks: tuple[int, ...]
    cuts_matrices: bool
    cuts_output: bool
    is_pipeline: bool
    overrides: tuple[tuple[re.Pattern[str], int], ...]
    host_expert_blocks: frozenset[int]
    overrides_first: bool = False
    parts: TensorSplit | None = None

    @property
    def of_output(self) -> int:
        """The device of the output layer."""
        return self.of_blocks[-1]

    @property
    def has_host_blocks(self) -> bool:
        """Whether some whole layers are in host memory."""
        return HOST in self.of_blocks

    def of_tensor(self, name: str) -> int:
        """The device of a tensor, by the first rule that matches; embeddings are on the host.

        --cpu-moe and --n-cpu-moe are rules, too, before or after --override-tensor.
        """
        block = block_of(name)
        overridden = self._overridden(name)
        if overridden is not None and self.overrides_first:
            return overridden
        if block is not None and is_expert(name) and self._keeps_experts(block):
            return HOST
        if overridden is not None:
            return overridden
        if block is None:
            return self.of_output if name.startswith("output") else HOST
        return self.of_blocks[block]

    def _overridden(self, name: str) -> int | None:
        found = (device for pattern, device in self.overrides if pattern.search(name))
        return next(found, None)

    def shares_of(self, name: str, *, is_matrix: bool) -> Mapping[int, float]:
        """Device -> share of a tensor."""
        device = self.of_tensor(name)
        is_whole = block_of(name) is None and not self.cuts_output
        if device == HOST or is_whole or not self.cuts_matrices:
            return {device: 1.0}
        if self.parts:
            return dict(enumerate(self.parts.of_tensor(name)))
        if is_matrix and (self.cuts_output or _ROUTER not in name):
            return dict(enumerate(self.shares))
        return {device: 1.0} if self.cuts_output else dict.fromkeys(range(len(self.shares)), 1.0)

    def cache_shares(self, block: int) -> Sequence[float]:
        """Share of each GPU in the KV cache of a block, where matrices are divided."""
        return self.parts.of_cache(block) if self.parts else self.shares

    def _keeps_experts(self, block: int) -> bool:
        """Whether the experts of a block are in host memory."""
        return self.placement.experts_on_cpu or block in self.host_expert_blocks


@cache
def block_of(name: str) -> int | None:
    """The block of a tensor, None for tensors of the whole model."""
    match = _BLOCK.match(name)
    return int(match.group(1)) if match else None


@cache
def is_expert(name: str) -> bool:
    """Whether a tensor holds routed experts."""
    return bool(_EXPERTS.match(name))


def devices(
    placement: ResolvedPlacement,
    *,
    blocks: int,
    gpu_memory_mib: Sequence[int],
    split_mode: SplitMode | None = None,
    main_gpu: int | None = None,
    layers: LayerRule | None = None,
    overrides_first: bool = False,
    output_layer_last: bool = False,
) -> Devices:
    """The rules for one placement. Raises UnknownDeviceError.

    + gpu_memory_mib: memory of each GPU of the instance, in order; decides the shares where the
      placement has no split
    + layers: the engine's own rule; else layers are divided by their number
    + overrides_first, output_layer_last: see corral.engines.base.MemoryRules
    """
    on_gpus = placement.gpu_layers != 0
    weights = list(placement.tensor_split or gpu_memory_mib)[: len(gpu_memory_mib)]
    weights += [0] * (len(gpu_memory_mib) - len(weights))
    if not on_gpus or sum(weights) == 0:
        weights = []
    shares = tuple(weight / sum(weights) for weight in weights)
    mode = split_mode or "layer"
    cuts_matrices = mode in _CUTTING_MODES and len(shares) > 1
    only_gpu = main_gpu or 0 if mode == "none" else None
    of_blocks = _of_blocks(placement, weights, blocks, only_gpu)
    if output_layer_last and of_blocks[0] == HOST:
        of_blocks = (*of_blocks[1:], HOST)
    host_experts = frozenset(range(min(placement.cpu_moe_layers, blocks)))
    if layers and mode == "layer" and len(shares) > 1:
        of_blocks, host_experts = layers(placement, shares, of_blocks)
    return Devices(
        placement=placement,
        shares=shares,
        of_blocks=of_blocks,
        cuts_matrices=cuts_matrices,
        cuts_output=cuts_matrices and mode != "graph",
        is_pipeline=mode == "layer"
        and len(shares) > 1
        and HOST not in of_blocks
        and not _overrides_tensors(placement),
        overrides=tuple(_overrides(placement, len(gpu_memory_mib))),
        host_expert_blocks=host_experts,
        overrides_first=overrides_first,
    )


def _overrides_tensors(placement: ResolvedPlacement) -> bool:
    counted = placement.experts_on_cpu or placement.cpu_moe_layers
    return bool(counted or placement.tensor_overrides)


def _of_blocks(
    placement: ResolvedPlacement, weights: Sequence[float], blocks: int, only_gpu: int | None
) -> tuple[int, ...]:
    """Layers go to the GPUs from the last one backwards; the output layer counts as one."""
    layers = placement.gpu_layers
    on_gpus = blocks + 1 if layers == "all" else min(layers, blocks + 1)
    if not weights:
        on_gpus = 0
    on_host = (HOST,) * (blocks + 1 - on_gpus)
    if only_gpu is not None:
        return on_host + (only_gpu,) * on_gpus
    bounds = [_float32(total / sum(weights)) for total in accumulate(weights)]
    gpus = (bisect_right(bounds, _float32(n / on_gpus)) for n in range(on_gpus))
    return on_host + tuple(gpus)


def _float32(number: float) -> float:
    """Round as the engine does, so that a layer exactly on a bound goes to the same GPU."""
    return float(struct.unpack("f", struct.pack("f", number))[0])


def _overrides(placement: ResolvedPlacement, gpus: int) -> list[tuple[re.Pattern[str], int]]:
    entries = (entry.split("=", 1) for entry in placement.tensor_overrides)
    return [(compiled(pattern), _device(buffer, gpus)) for pattern, buffer in entries]


def _device(buffer: str, gpus: int) -> int:
    if buffer in ("CPU", "CUDA_Host"):
        return HOST
    number = re.fullmatch(r"CUDA([0-9]+)", buffer)
    if number and int(number.group(1)) < gpus:
        return int(number.group(1))
    known = ", ".join(["CPU", *(f"CUDA{n}" for n in range(gpus))])
    raise UnknownDeviceError(f"tensor_overrides names the buffer {buffer}, known here: {known}")
