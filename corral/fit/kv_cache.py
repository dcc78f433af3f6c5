"""Bytes of the KV cache on each device, exactly.

Source: llama-kv-cache.cpp of llama.cpp at 0c1e57098bba: the context is divided among the slots,
each part rounded up to 256 cells; each cell and layer has a row of K and a row of V. In
ik_llama.cpp at 8337e4cd3861 all slots share one cache, and latent attention has the rows that
mla_mode needs (llama.cpp, llama_kv_cache_init).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from corral.catalog.profile import KvType, Profile
from corral.engines.base import MemoryRules
from corral.fit.devices import HOST, Devices
from corral.fit.ggml import KV_TYPES, tensor_bytes
from corral.fit.latent import mode_of
from corral.fit.shape import Shape

_CELLS_STEP = 256
# Without flash attention ik_llama.cpp rounds up less (llama_kv_cache_get_padding).
_CELLS_STEP_PLAIN = 32
_F32 = 4

Rows = tuple[tuple[KvType, int], ...]


def cells_per_slot(profile: Profile) -> int:
    """Cells of one slot that has a cache of its own."""
    return _rounded_up(profile.context_tokens_per_slot, _CELLS_STEP)


def attended_cells(profile: Profile, engine: MemoryRules) -> int:
    """Cells that attention sees: those of one slot, or of all slots that share a cache."""
    if not engine.shared_cache:
        return cells_per_slot(profile)
    step = _CELLS_STEP if profile.flash_attention else _CELLS_STEP_PLAIN
    return _rounded_up(profile.context_tokens_per_slot * profile.slots, step)


def all_cells(profile: Profile, engine: MemoryRules) -> int:
    """Cells of all slots."""
    return attended_cells(profile, engine) * (1 if engine.shared_cache else profile.slots)


def kv_bytes(
    shape: Shape, profile: Profile, rules: Devices, engine: MemoryRules
) -> Mapping[int, int]:
    """Bytes per device (HOST is -1), with MTP blocks when the profile drafts with them.

    Raises ValueError when a row is not a whole number of the cache type's blocks.
    """
    held: Counter[int] = Counter()
    for block in range(shape.blocks if profile.mtp_draft_tokens else shape.layers):
        device = rules.of_blocks[block] if profile.kv_on_gpu else HOST
        size_bytes = layer_bytes(shape, profile, engine, block=block)
        if rules.cuts_matrices and device != HOST:
            for gpu, share in enumerate(rules.cache_shares(block)):
                held[gpu] += round(size_bytes * share)
        else:
            held[device] += size_bytes
    return held


def layer_bytes(shape: Shape, profile: Profile, engine: MemoryRules, *, block: int) -> int:
    """Bytes of one layer for all slots; of an MTP block, of all caches for drafts.

    A block of linear attention keeps its state in f32, whatever the cache types
    (llama-memory-recurrent.cpp).
    """
    if shape.recurrent and shape.is_recurrent(block):
        return shape.recurrent.kept * _F32 * profile.slots
    is_draft = block >= shape.layers
    forced = engine.draft_kv_type if is_draft else None
    cells = all_cells(profile, engine)
    rows = kv_rows(shape, profile, engine, block=block)
    size_bytes = sum(_bytes(forced or kv_type, width, cells) for kv_type, width in rows)
    caches = 1 + profile.slots if is_draft and engine.draft_context_per_slot else 1
    return size_bytes * caches


def kv_rows(shape: Shape, profile: Profile, engine: MemoryRules, *, block: int) -> Rows:
    """Type and elements of K, of V and of an indexer's keys for one token in one block."""
    k, v = profile.kv_type_k, profile.kv_type_v
    mla = shape.mla
    if not engine.latent_by_mode or mla is None:
        widths = shape.kv_widths(block)
        return ((k, widths[0]), (v, widths[1]), (k, _indexer_width(shape, block)))
    mode = mode_of(profile)
    if mode == 0:
        return ((k, shape.heads * mla.key), (v, shape.heads * mla.value))
    compressed = mla.rank + mla.rope
    if profile.flash_attention:
        return ((k, compressed),)
    # Without flash attention mode 1 keeps a transposed copy, the others make one as they need it.
    return ((k, compressed), (v, mla.rank)) if mode == 1 else ((v, compressed),)


def _indexer_width(shape: Shape, block: int) -> int:
    """Keys of the indexer; blocks without one use the choice of the block before (glm-dsa)."""
    has_own = shape.indexer and block < shape.layers and shape.indexer.in_blocks[block]
    return shape.indexer.width if shape.indexer and has_own else 0


def _rounded_up(tokens: int, step: int) -> int:
    return -(-tokens // step) * step


def _bytes(kv_type: KvType, width: int, cells: int) -> int:
    return tensor_bytes(KV_TYPES[kv_type], (width, cells)) if width else 0
