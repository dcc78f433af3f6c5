"""How ik_llama.cpp divides layers, and layers with experts in host memory, among several GPUs.

Source: get_layer_sizes and llm_load_tensors of llama.cpp, create_tensors_helper of
llama-load-tensors.cpp; ik_llama.cpp at 8337e4cd3861. Its numbers are floats where these are.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate

from corral.catalog.profile import Profile
from corral.engines.base import MemoryRules
from corral.fit.devices import HOST, Devices, block_of, devices, is_expert
from corral.fit.ggml import KV_TYPES, tensor_bytes
from corral.fit.gguf import Tensor
from corral.fit.kv_cache import all_cells, kv_rows
from corral.fit.latent import mode_of
from corral.fit.model import ModelFile
from corral.fit.shape import Shape
from corral.fit.tensor_split import tensor_split
from corral.plan.placement import ResolvedPlacement

_F32 = 4
MIB = 1024**2
_Q8_0_ID = 8
_DENSE = (".ffn_up.weight", ".ffn_gate.weight", ".ffn_down.weight")
_SHARED = (".ffn_up_shexp.weight", ".ffn_gate_shexp.weight", ".ffn_down_shexp.weight")


@dataclass(frozen=True, slots=True)
class LayerSizes:
    """Bytes of each layer and, last, of the output layer; ``compute``: of the widest layer."""

    sizes: tuple[int, ...]
    compute: float

    def devices(self, shares: Sequence[float], first: int, *, with_output: bool) -> list[int]:
        """The GPU of each layer and of the output layer; layers before ``first`` are on none."""
        last = len(self.sizes) - (0 if with_output else 1)
        total = self.compute * len(shares) + sum(self.sizes[first:last])
        found = [len(shares) - 1] * len(self.sizes)
        layer, loaded = first, 0.0
        for gpu, bound in enumerate(_bounds(shares)):
            loaded = _float32(loaded + self.compute)
            wanted = _float32(bound * total)
            while layer < last:
                after = loaded + self.sizes[layer]
                # The layer on the bound goes to the GPU that it fits better.
                if after > wanted and after - wanted >= wanted - loaded:
                    break
                found[layer] = gpu
                loaded = _float32(after)
                layer += 1
                if after > wanted:
                    break
        return found


def layout(
    model: ModelFile,
    profile: Profile,
    placement: ResolvedPlacement,
    *,
    engine: MemoryRules,
    gpu_memory_mib: Sequence[int],
) -> Devices:
    """The device of each tensor by the rules of an engine. Raises UnknownDeviceError.

    + gpu_memory_mib: memory of each GPU of the instance
    """
    shape = model.shape
    sizes = layer_sizes(model, shape, profile, engine) if shape and engine.splits_by_size else None
    found = devices(
        placement,
        blocks=model.blocks,
        gpu_memory_mib=gpu_memory_mib,
        split_mode=profile.split_mode,
        main_gpu=profile.main_gpu,
        layers=partial(_divided, sizes) if sizes else None,
        overrides_first=engine.overrides_first,
        output_layer_last=engine.output_layer_last,
    )
    if profile.split_mode != "tensor" or shape is None or not found.cuts_matrices:
        return found
    return replace(found, parts=tensor_split(model.tensors, shape, found.shares))


def _divided(
    sizes: LayerSizes,
    placement: ResolvedPlacement,
    shares: Sequence[float],
    by_number: Sequence[int],
) -> tuple[tuple[int, ...], frozenset[int]]:
    """A rule for corral.fit.devices."""
    on_host = [device == HOST for device in by_number]
    found = sizes.devices(shares, on_host[:-1].count(True), with_output=not on_host[-1])
    experts = host_expert_blocks(placement, found[:-1], len(shares))
    pairs = zip(on_host, found, strict=True)
    return tuple(HOST if kept else gpu for kept, gpu in pairs), experts


def layer_sizes(model: ModelFile, shape: Shape, profile: Profile, rules: MemoryRules) -> LayerSizes:
    """The sizes by which layers are divided, whatever a profile overrides."""
    blocks = _by_block(model.tensors)
    drafts = profile.mtp_draft_tokens is not None
    sizes, compute = [], [0.0]
    for block in range(shape.blocks):
        parts = blocks.get(block, {})
        is_left_out = block >= shape.layers and not drafts
        weights = 0 if is_left_out else sum(tensor.size_bytes for tensor in parts.values())
        extra, expanded = (0, 0.0) if is_left_out else _latent(parts, shape, profile)
        rows = kv_rows(shape, profile, rules, block=block)
        sizes.append(weights + extra + _kv_bytes(rows, all_cells(profile, rules)))
        compute += [expanded, 0 if is_left_out else _feed_forward(parts, shape, profile)]
    widest = max(compute)
    logits = shape.vocabulary * profile.ubatch_tokens * _F32
    return LayerSizes((*sizes, _output_bytes(model.tensors) + int(max(logits - widest, 0))), widest)


def host_expert_blocks(
    placement: ResolvedPlacement, of_layers: Sequence[int], gpus: int
) -> frozenset[int]:
    """The blocks whose experts are in host memory: of each GPU its last ones, by its share."""
    wanted, layers = placement.cpu_moe_layers, len(of_layers)
    if wanted >= layers or gpus < 2:
        return frozenset(range(min(wanted, layers)))
    counts = Counter(of_layers)
    shares = {gpu: _float32(_float32(counts[gpu] / layers) * wanted) for gpu in range(gpus)}
    left = {gpu: int(share + 0.5) for gpu, share in shares.items()}
    while sum(left.values()) != wanted:
        step = 1 if sum(left.values()) < wanted else -1
        movable = [g for g in left if (left[g] < counts[g] if step > 0 else left[g] > 0)]
        if not movable:
            break
        off = {gpu: left[gpu] + step - counts[gpu] * wanted / layers for gpu in movable}
        gpu = min(movable, key=lambda g: step * off[g])
        left[gpu] += step
    found = set()
    for block in reversed(range(layers)):
        if left[of_layers[block]] > 0:
            found.add(block)
            left[of_layers[block]] -= 1
    return frozenset(found)


def _bounds(shares: Sequence[float]) -> list[float]:
    return [_float32(share) for share in accumulate(shares)]


def _by_block(tensors: Sequence[Tensor]) -> Mapping[int, dict[str, Tensor]]:
    found: dict[int, dict[str, Tensor]] = {}
    for tensor in tensors:
        block = block_of(tensor.name)
        if block is not None:
            found.setdefault(block, {})[tensor.name] = tensor
    return found


def _latent(parts: Mapping[str, Tensor], shape: Shape, profile: Profile) -> tuple[int, float]:
    """Bytes of parts made at load, as counted there, and of K and V expanded for a prompt."""
    if shape.mla is None:
        return 0, 0.0
    named = {name.rpartition("attn_")[2]: tensor for name, tensor in parts.items()}
    k, v, whole = (named.get(f"{part}.weight") for part in ("k_b", "v_b", "kv_b"))
    extra = 0
    if k and v and not whole:
        type_id = k.type_id if k.type_id in (0, 1, 30) else _Q8_0_ID
        extra = tensor_bytes(type_id, (v.shape[0], (v.shape[1] + k.shape[1]) * v.shape[2])) * 2
    elif whole:
        extra = whole.size_bytes // 2 * ((not k) + (not v))
    if v is None or len(v.shape) < 3 or mode_of(profile) != 3:  # noqa: PLR2004 - heads are third
        return extra, 0.0
    context = profile.context_tokens_per_slot * profile.slots
    heads = v.shape[2]
    all_mib = 2 * v.shape[1] * heads * context * _F32 / MIB
    most_mib = profile.attention_max_batch_mib
    if most_mib and all_mib > most_mib:
        parts_of = (n for n in range(2, heads) if heads % n == 0 and all_mib / n <= most_mib)
        heads //= next(parts_of, heads)
    return extra, 2.0 * v.shape[1] * heads * context * _F32


def _feed_forward(parts: Mapping[str, Tensor], shape: Shape, profile: Profile) -> float:
    tokens = profile.ubatch_tokens
    experts = [t.shape[1] for name, t in parts.items() if is_expert(name)]
    shared = [t.shape[1] for name, t in parts.items() if name.endswith(_SHARED)]
    dense = [t.shape[1] for name, t in parts.items() if name.endswith(_DENSE)]
    widths = (sum(experts) * shape.experts_used, sum(shared), sum(dense))
    has_norm = any("norm" in name for name in parts)
    return (max(widths) + shape.embedding * (2 if has_norm else 1)) * tokens * _F32


def _kv_bytes(rows: Sequence[tuple[str, int]], cells: int) -> int:
    return sum(tensor_bytes(KV_TYPES[name], (width, cells)) for name, width in rows if width)


def _output_bytes(tensors: Sequence[Tensor]) -> int:
    sizes = {tensor.name: tensor.size_bytes for tensor in tensors if block_of(tensor.name) is None}
    return sizes.get("output.weight") or sizes.get("token_embd.weight", 0)


def _float32(number: float) -> float:
    return float(struct.unpack("f", struct.pack("f", number))[0])
