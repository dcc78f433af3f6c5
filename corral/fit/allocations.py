"""What CUDA adds where an engine allocates each tensor, or each part of one, alone.

ik_llama.cpp calls cudaMalloc for each tensor that it makes at load (llm_prepare_mla of llama.cpp,
at 8337e4cd3861), and in split mode graph for each GPU's part of each matrix and cache
(ggml_backend_cuda_split_buffer_init_tensor of ggml-cuda.cu). CUDA gives whole pages of 2 MiB; what
is smaller than 1 MiB shares a page with others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from corral.catalog.profile import Profile
from corral.engines.base import MemoryRules
from corral.fit.devices import HOST, Devices
from corral.fit.gguf import Tensor
from corral.fit.kv_cache import layer_bytes
from corral.fit.shape import Shape

MIB = 1024**2
_PAGE_BYTES, _SHARED_BELOW_BYTES = 2 * MIB, MIB
# K and V of a layer.
_CACHES = 2


def made_rounding_bytes(made: Iterable[Tensor], rules: Devices) -> Counter[int]:
    """Bytes of each device beyond the tensors that are made at load (corral.fit.latent).

    Held by a server with 47 of them more than by one with 8: 52 MiB measured, 53 counted.
    """
    added: Counter[int] = Counter()
    for tensor in made:
        for device in rules.shares_of(tensor.name, is_matrix=True):
            added[device] += _rest(tensor.size_bytes)
    return added


def rounding_bytes(
    tensors: Iterable[Tensor], shape: Shape, profile: Profile, rules: Devices, engine: MemoryRules
) -> Counter[int]:
    """Bytes of each GPU beyond its weights and caches in mode graph; none in other modes."""
    added: Counter[int] = Counter()
    if not rules.cuts_matrices or rules.cuts_output:
        return added
    for tensor in tensors:
        shares = rules.shares_of(tensor.name, is_matrix=len(tensor.shape) > 1)
        if len(shares) > 1:
            for device, share in shares.items():
                added[device] += _rest(tensor.size_bytes * share)
    for block in range(shape.blocks if profile.mtp_draft_tokens else shape.layers):
        if profile.kv_on_gpu and rules.of_blocks[block] != HOST:
            size_bytes = layer_bytes(shape, profile, engine, block=block) / _CACHES
            for gpu, share in enumerate(rules.shares):
                added[gpu] += _CACHES * _rest(size_bytes * share)
    return added


def _rest(size_bytes: float) -> int:
    """From the end of an allocation to the end of its last page."""
    return -int(size_bytes) % _PAGE_BYTES if size_bytes >= _SHARED_BELOW_BYTES else 0
