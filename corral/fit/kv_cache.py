"""Bytes of the KV cache on each device, exactly.

Source: llama-kv-cache.cpp of llama.cpp at 0c1e57098bba: the context is divided among the slots,
each part rounded up to 256 cells; each cell and layer has a row of K and a row of V.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from corral.catalog.profile import KvType, Profile
from corral.fit.devices import HOST, Devices
from corral.fit.ggml import KV_TYPES, tensor_bytes
from corral.fit.shape import Shape

_CELLS_STEP = 256


def cells_per_slot(profile: Profile) -> int:
    """Cells of one slot."""
    return -(-profile.context_tokens_per_slot // _CELLS_STEP) * _CELLS_STEP


def kv_bytes(shape: Shape, profile: Profile, rules: Devices) -> Mapping[int, int]:
    """Bytes per device (HOST is -1), with MTP blocks when the profile drafts with them.

    Raises ValueError when a row is not a whole number of the cache type's blocks.
    """
    held: Counter[int] = Counter()
    cells = cells_per_slot(profile) * profile.slots
    for block in range(shape.blocks if profile.mtp_draft_tokens else shape.layers):
        device = rules.of_blocks[block] if profile.kv_on_gpu else HOST
        size_bytes = layer_bytes(shape, profile, block=block, cells=cells)
        if rules.cuts_matrices and device != HOST:
            for gpu, share in enumerate(rules.shares):
                held[gpu] += round(size_bytes * share)
        else:
            held[device] += size_bytes
    return held


def layer_bytes(shape: Shape, profile: Profile, *, block: int, cells: int) -> int:
    """Bytes of K and V of one layer for ``cells`` cells."""
    k, v = shape.kv_widths(block)
    return _rows(profile.kv_type_k, k, cells) + (_rows(profile.kv_type_v, v, cells) if v else 0)


def _rows(kv_type: KvType, width: int, cells: int) -> int:
    return tensor_bytes(KV_TYPES[kv_type], (width, cells))
