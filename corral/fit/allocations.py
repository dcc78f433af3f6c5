"""What CUDA adds where an engine allocates each part of a tensor alone.

In split mode graph ik_llama.cpp calls cudaMalloc for each GPU's part of each matrix and cache
(ggml_backend_cuda_split_buffer_init_tensor of ggml-cuda.cu, at 8337e4cd3861), and CUDA gives whole
pages of 2 MiB. What is smaller than 1 MiB shares a page with others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

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


def rounding_bytes(
    tensors: Iterable[Tensor], shape: Shape, profile: Profile, rules: Devices, engine: MemoryRules
) -> Mapping[int, int]:
    """Bytes of each GPU beyond its weights and caches; none in other modes."""
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
