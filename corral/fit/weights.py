"""Bytes of weights that the engine allocates on each device, exactly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from corral.fit.devices import HOST, Devices, block_of, is_expert
from corral.fit.gguf import Tensor

_EMBEDDINGS, _OUTPUT = "token_embd.weight", "output.weight"


def loaded(tensors: Iterable[Tensor], *, layers: int, mtp: bool) -> list[Tensor]:
    """Tensors that the engine loads; MTP blocks only when it drafts with them."""
    return [t for t in tensors if mtp or (block_of(t.name) or 0) < layers]


def weights_bytes(tensors: Iterable[Tensor], rules: Devices) -> Mapping[int, int]:
    """Bytes per device (HOST is -1). Embeddings that also serve as output are loaded twice."""
    held: Counter[int] = Counter()
    names = set()
    embeddings_bytes = 0
    for tensor in tensors:
        names.add(tensor.name)
        embeddings_bytes += tensor.size_bytes if tensor.name == _EMBEDDINGS else 0
        _hold(held, tensor.size_bytes, tensor.name, rules, is_matrix=len(tensor.shape) > 1)
    if _OUTPUT not in names and rules.of_output != HOST:
        _hold(held, embeddings_bytes, _OUTPUT, rules, is_matrix=True)
    return held


def largest_host_tensors_bytes(
    tensors: Iterable[Tensor], rules: Devices, *, fused: bool = False
) -> tuple[int, int]:
    """Sizes of the largest expert tensor and of the largest other one in host memory.

    To compute a prompt, the engine copies one such tensor at a time to the first GPU, or two
    experts of a block whose other layers are on another GPU.

    + fused: it computes gate and up together: copies both, and then the other one
    """
    others = 0
    experts: dict[int, list[int]] = {}
    together: Counter[int] = Counter()
    for tensor in tensors:
        if tensor.name in (_EMBEDDINGS, _OUTPUT) or rules.of_tensor(tensor.name) != HOST:
            continue
        block = block_of(tensor.name)
        if block is not None and is_expert(tensor.name):
            experts.setdefault(block, []).append(tensor.size_bytes)
            together[block] += 0 if "_down" in tensor.name else tensor.size_bytes
        else:
            others = max(others, tensor.size_bytes)
    if fused:
        copied = [max(*sizes, together[block]) for block, sizes in experts.items()]
        return max(copied, default=0), others
    copied = [
        sum(sorted(sizes)[-2:]) if rules.of_blocks[block] > 0 else max(sizes)
        for block, sizes in experts.items()
    ]
    return max(copied, default=0), others


def _hold(
    held: Counter[int], size_bytes: int, name: str, rules: Devices, *, is_matrix: bool
) -> None:
    for device, share in rules.shares_of(name, is_matrix=is_matrix).items():
        held[device] += round(size_bytes * share)
