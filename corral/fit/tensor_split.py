"""How split mode tensor of llama.cpp divides a model: what each GPU has a part of, and all of.

Source: llama_meta_device_get_split_state of llama-model.cpp, llama.cpp at 0c1e57098bba. Attention
is divided by its KV heads, and feed-forward parts by columns in whole blocks of the quantization,
at least 128; what is left over goes to another GPU in each block. Everything else is on every GPU:
norms, routers and, as their names match no pattern, shared experts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from corral.fit.ggml import TYPES
from corral.fit.gguf import Tensor
from corral.fit.shape import Shape

_ATTENTION = re.compile(r"blk\.([0-9]+)\.attn_(q|k|v|qkv|output|gate)\.weight")
_ATTENTION_VECTOR = re.compile(r"blk\.([0-9]+)\.attn_(q|k|v|qkv)\.bias")
_FEED_FORWARD = re.compile(r"blk\.([0-9]+)\.ffn_(up|gate|gate_up|down)(_exps)?\.weight")
_DOWN = re.compile(r"blk\.([0-9]+)\.ffn_down(_exps)?\.weight")
_FEWEST_COLUMNS = 128
# Sums of shares are at times a little below what they stand for.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class TensorSplit:
    """The parts of the GPUs, by their shares.

    + heads: KV heads of each block; + columns: of a feed-forward part's result before the last
      matrix, for each block, and how many are never divided
    """

    shares: tuple[float, ...]
    heads: tuple[int, ...]
    columns: Mapping[int, tuple[int, int]]

    def of_tensor(self, name: str) -> tuple[float, ...]:
        """The part of a tensor that each GPU has."""
        if name == "output.weight":
            return self.shares
        if match := _ATTENTION.fullmatch(name) or _ATTENTION_VECTOR.fullmatch(name):
            return self.of_cache(int(match.group(1)))
        match = _FEED_FORWARD.fullmatch(name)
        if match and int(match.group(1)) in self.columns:
            block = int(match.group(1))
            return self._parts(block, *self.columns[block])
        return (1.0,) * len(self.shares)

    def of_cache(self, block: int) -> tuple[float, ...]:
        """The part of a block's KV cache that each GPU has."""
        return self._parts(block, self.heads[block], 1)

    def _parts(self, block: int, width: int, unit: int) -> tuple[float, ...]:
        """The first GPUs get whole units, the last one the rest; which is first changes."""
        gpus = len(self.shares)
        if not width:
            return (1.0,) * gpus
        order = [(n + block) % gpus for n in range(gpus)]
        parts, low, total = [0.0] * gpus, 0, 0.0
        for gpu in order:
            total += self.shares[gpu]
            high = width if gpu == order[-1] else int(width * total + _ROUNDING) // unit * unit
            parts[gpu] = (high - low) / width
            low = high
        return tuple(parts)


def tensor_split(tensors: Iterable[Tensor], shape: Shape, shares: Sequence[float]) -> TensorSplit:
    """The parts of a model; ``shares`` add up to 1."""
    columns = {}
    for tensor in tensors:
        if match := _DOWN.fullmatch(tensor.name):
            unit = math.lcm(TYPES[tensor.type_id].block_elements, _FEWEST_COLUMNS)
            columns[int(match.group(1))] = (tensor.shape[0], unit)
    return TensorSplit(tuple(shares), shape.kv_heads, columns)
