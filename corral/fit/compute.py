"""Upper bounds of compute buffers: no simple formula, so the largest of a few terms.

Each term is the size of the tensors that are alive together at a point of the graph; which point is
the widest depends on the batch, the context and the cache types. The bounds were checked against
llama-fit-params on an H200 for GLM-4.5-Air, GLM-4-32B, GLM-4.7, GLM-4.7-Flash and DeepSeek V2.5
(tests/data/h200-compute.csv): never more than 64 MiB too low.
"""

from __future__ import annotations

from dataclasses import dataclass

from corral.catalog.profile import Profile
from corral.engines.base import MemoryRules
from corral.fit.hybrid import Hybrid
from corral.fit.kv_cache import all_cells, attended_cells, layer_bytes
from corral.fit.latent import Scratch
from corral.fit.shape import Indexer, Shape

_F32, _F16 = 4, 2
# Batches whose inputs are kept where GPUs work in a pipeline (GGML_SCHED_MAX_COPIES).
_PIPELINE_COPIES = 4
_SORT_COPIES = 6
MIB = 1024**2
_SORT_CHUNK_BYTES = 64 * MIB
# Of CUDA's libraries at the first prompt: up to 136 MiB on an H200 (docs/measurements/).
CUDA_POOLS_BYTES = 136 * MIB


@dataclass(frozen=True, slots=True)
class HostParts:
    """Parts in host memory of a model that also computes on GPUs; sizes in bytes.

    + expert_tensors: the tensors copied to a GPU at a time to compute a prompt
    """

    expert_tensors: int = 0
    largest_other_tensor: int = 0
    output_tensor: int = 0
    has_layers: bool = False
    has_kv: bool = False


def gpu_compute_bytes(
    shape: Shape,
    profile: Profile,
    parts: HostParts,
    *,
    engine: MemoryRules,
    outputs_per_batch: int,
) -> int:
    """Upper bound for one GPU.

    + outputs_per_batch: tokens of a batch whose logits this GPU computes. A server needs one per
      slot; llama-fit-params counts the whole batch
    """
    mask = _mask_bytes(profile, engine)
    copied = max(parts.expert_tensors, parts.largest_other_tensor)
    logits = _logits_bytes(shape, profile, engine, outputs_per_batch) + (mask if copied else 0)
    attention = _attention_bytes(shape, profile, engine) + mask
    feed_forward = _feed_forward_bytes(shape, profile, engine) + mask
    widest = max(logits, attention, feed_forward) + (mask if parts.has_layers else 0)
    if parts.has_kv:
        copied += layer_bytes(shape, profile, engine, block=shape.attending_block)
    offloaded = copied + _offloaded_bytes(shape, profile, engine) + mask if copied else 0
    # Smaller batches are not offloaded (ggml-cuda's offload_op).
    if parts.output_tensor and outputs_per_batch >= 32:
        offloaded = max(offloaded, parts.output_tensor + logits + 3 * mask)
    return max(widest, offloaded) + _pool_bytes(shape, profile, engine)


def pipelined_gpu_compute_bytes(
    shape: Shape,
    profile: Profile,
    *,
    engine: MemoryRules,
    is_first: bool,
    outputs_per_batch: int,
) -> int:
    """Upper bound for one GPU of a pipeline, which keeps the inputs of all batches in progress.

    These are the masks and the embeddings and, after the first GPU, the output of the GPU before.
    """
    masks, row = _masks_bytes(shape, profile, engine), _row_bytes(shape, profile)
    logits = _logits_bytes(shape, profile, engine, outputs_per_batch) if outputs_per_batch else 0
    attention = _attention_bytes(shape, profile, engine)
    feed_forward = _feed_forward_bytes(shape, profile, engine)
    inputs = masks + (row if is_first else 2 * row)
    return max(logits, attention, feed_forward) + _PIPELINE_COPIES * inputs


def host_compute_bytes(
    shape: Shape, profile: Profile, *, engine: MemoryRules, is_pipeline: bool = False
) -> int:
    """Upper bound for the host beside GPUs: the masks and the embeddings of a batch."""
    masks, row = _masks_bytes(shape, profile, engine), _row_bytes(shape, profile)
    return (_PIPELINE_COPIES * (masks + row) + row) if is_pipeline else masks + 2 * row


def cpu_compute_bytes(
    shape: Shape,
    profile: Profile,
    *,
    engine: MemoryRules,
    outputs_per_batch: int,
    drafting: bool = False,
) -> int:
    """Upper bound for the host where no GPU is used. Less is alive than on a GPU.

    + drafting: in the context of an MTP block, which joins two vectors for each token

    Checked against both engines' servers on the CPU: tests/data/cpu-compute.csv.
    """
    mask, row = _mask_bytes(profile, engine), _row_bytes(shape, profile)
    logits = outputs_per_batch * shape.vocabulary * _F32
    widest = max(
        logits,
        _cpu_attention_bytes(shape, profile, engine),
        _cpu_feed_forward_bytes(shape, profile),
    )
    joined = 4 * row if drafting else 0
    return widest + 2 * row + joined + (mask if widest > logits else 0)


def _cpu_attention_bytes(shape: Shape, profile: Profile, engine: MemoryRules) -> int:
    if scratch := _scratch(shape, profile, engine, on_gpu=False):
        return scratch.graph_bytes()
    if hybrid := _hybrid(shape, profile, engine):
        return hybrid.graph_bytes()
    mask, row = _mask_bytes(profile, engine), _row_bytes(shape, profile)
    per_width = profile.ubatch_tokens * shape.heads * _F32
    alive = 3 * per_width * shape.key_length + row
    if shape.latent and shape.mla:
        mla = shape.mla
        alive = per_width * (2 * mla.rank + mla.rope + 2 * mla.key) + 3 * row
        alive += _indexer_bytes(shape, profile, engine)
    if profile.flash_attention:
        return alive
    scores = shape.heads * attended_cells(profile, engine) * profile.ubatch_tokens * _F32
    transposed = attended_cells(profile, engine) * shape.mla.rank * _F16 if shape.mla else 0
    return alive + scores + transposed + (mask if shape.latent else 0)


def _cpu_feed_forward_bytes(shape: Shape, profile: Profile) -> int:
    """Dense: gate, up and their product. Experts: gate and up, or the product and its result."""
    row, tokens = _row_bytes(shape, profile), profile.ubatch_tokens
    dense = 3 * tokens * shape.feed_forward * _F32 + 2 * row
    product = tokens * shape.expert_feed_forward * _F32
    experts = shape.experts_used * max(3 * product, row + product) + row
    return max(dense, experts) + _more_streams_bytes(shape, profile)


def _indexer(shape: Shape, engine: MemoryRules) -> Indexer | None:
    """The indexer that runs; ik_llama.cpp attends to all cells instead."""
    return None if engine.latent_by_mode else shape.indexer


def _indexer_bytes(shape: Shape, profile: Profile, engine: MemoryRules) -> int:
    """A mask of its own and the scores of all cells."""
    if not _indexer(shape, engine):
        return 0
    return attended_cells(profile, engine) * profile.ubatch_tokens * (_F16 + _F32)


def sort_pool_bytes(shape: Shape, profile: Profile, engine: MemoryRules) -> int:
    """What CUDA's pool holds while an indexer's scores are sorted, as top-k before CCCL 3.2.

    The result, keys and indices before and after, and two of those for the sort itself, for as many
    tokens as have 64 MiB of scores (top-k.cu and argsort.cu of llama.cpp at 0c1e57098bba).
    """
    indexer = _indexer(shape, engine)
    if not indexer:
        return 0
    row = attended_cells(profile, engine) // indexer.pool * _F32
    return _SORT_COPIES * max(min(profile.ubatch_tokens * row, _SORT_CHUNK_BYTES), row)


def scores_pool_bytes(shape: Shape, profile: Profile, engine: MemoryRules) -> int:
    """What CUDA's pool holds of attention without flash attention: cuBLAS gets the scores in f16.

    Both engines' ggml_cuda_mul_mat, of V and the scores. 320 MiB of GLM-4.7-Flash at 16384 by
    ik_llama.cpp, counted and measured on an H200.
    """
    if scratch := _scratch(shape, profile, engine, on_gpu=True):
        return scratch.scores_pool_bytes()
    if profile.flash_attention:
        return 0
    cells, queries = attended_cells(profile, engine), profile.ubatch_tokens * shape.heads
    return queries * (cells + shape.key_length) * _F16


def _row_bytes(shape: Shape, profile: Profile) -> int:
    """One vector of the residual stream for each token of a batch."""
    return profile.ubatch_tokens * shape.embedding * _F32


def _mask_bytes(profile: Profile, engine: MemoryRules) -> int:
    element = _F16 if profile.flash_attention else _F32
    return attended_cells(profile, engine) * profile.ubatch_tokens * element


def _masks_bytes(shape: Shape, profile: Profile, engine: MemoryRules) -> int:
    """That of attention and that of an indexer, which are inputs of a batch."""
    mask, indexer = _mask_bytes(profile, engine), _indexer(shape, engine)
    if not indexer:
        return mask
    return mask + (mask if indexer.pool == 1 else mask // indexer.pool * 2)


def _logits_bytes(shape: Shape, profile: Profile, engine: MemoryRules, outputs: int) -> int:
    row = _row_bytes(shape, profile)
    if engine.logits_of_whole_batch:
        # 304.00 MiB of GLM-4.5-Air and 306.50 of GLM-4.7-Flash, as the server says.
        return outputs * shape.vocabulary * _F32 + row
    last_layer = 2 * shape.experts_used * row + 3 * row if shape.experts_used else row
    return outputs * shape.vocabulary * _F32 + last_layer


def fuses_experts(profile: Profile, engine: MemoryRules) -> bool:
    """Whether gate and up of experts are one operation."""
    return engine.fuses_experts and profile.fused_moe is not False


def _feed_forward_bytes(shape: Shape, profile: Profile, engine: MemoryRules) -> int:
    """Gate, up and their product, and the residual stream beside them."""
    row = _row_bytes(shape, profile)
    dense = 3 * profile.ubatch_tokens * shape.feed_forward * _F32 + 3 * row
    if not shape.experts_used:
        return dense
    product = profile.ubatch_tokens * shape.expert_feed_forward * _F32
    if fuses_experts(profile, engine):
        return max(dense, shape.experts_used * (row + product) + 3 * row)
    experts = 2 * shape.experts_used * (row + product) + 7 * row
    return max(dense, experts) + _more_streams_bytes(shape, profile)


def _more_streams_bytes(shape: Shape, profile: Profile) -> int:
    """Residual streams beyond one, before and after a layer."""
    return 2 * (shape.streams - 1) * _row_bytes(shape, profile)


def _offloaded_bytes(shape: Shape, profile: Profile, engine: MemoryRules) -> int:
    """The feed-forward part beside a copied tensor: only one product of the experts is alive."""
    whole = _feed_forward_bytes(shape, profile, engine)
    if fuses_experts(profile, engine):
        return whole
    return whole - shape.experts_used * _row_bytes(shape, profile)


def _scratch(
    shape: Shape, profile: Profile, engine: MemoryRules, *, on_gpu: bool
) -> Scratch | None:
    """Latent attention by its mode, in an engine that computes it so."""
    if not engine.latent_by_mode or shape.mla is None:
        return None
    return Scratch(
        shape.mla, shape.heads, profile, cells=attended_cells(profile, engine), on_gpu=on_gpu
    )


def _hybrid(shape: Shape, profile: Profile, engine: MemoryRules) -> Hybrid | None:
    """Sparse attention beside linear attention; None without the latter."""
    if shape.recurrent is None or shape.indexer is None or shape.mla is None:
        return None
    return Hybrid(
        shape=shape,
        recurrent=shape.recurrent,
        indexer=shape.indexer,
        mla=shape.mla,
        profile=profile,
        cells=attended_cells(profile, engine),
        all_cells=all_cells(profile, engine),
    )


def _pool_bytes(shape: Shape, profile: Profile, engine: MemoryRules) -> int:
    """What CUDA's pools hold for a prompt, of an engine whose use of them grows with it.

    Experts: measured 218 to 243 MiB of GLM-4.5-Air with 512 tokens in a batch, and twice that with
    1024 (tests/data/held-h200.csv, ik-h200x2-servers.csv).
    """
    if not engine.copies_in_pools:
        return 0
    product = profile.ubatch_tokens * shape.expert_feed_forward * _F32
    experts = shape.experts_used * (3 * _row_bytes(shape, profile) + 2 * product)
    usual = max(experts, CUDA_POOLS_BYTES, scores_pool_bytes(shape, profile, engine))
    if scratch := _scratch(shape, profile, engine, on_gpu=True):
        return usual + scratch.pool_bytes()
    return usual + _copied_cache_bytes(shape, profile, engine)


def _copied_cache_bytes(shape: Shape, profile: Profile, engine: MemoryRules) -> int:
    """A quantized cache as f16, which flash attention reads for a prompt."""
    if not profile.flash_attention:
        return 0
    types = (profile.kv_type_k, profile.kv_type_v)
    return sum(
        all_cells(profile, engine) * width * _F16
        for kv_type, width in zip(types, shape.kv_widths(shape.attending_block), strict=True)
        if kv_type != "f16"
    )


def _attention_bytes(
    shape: Shape, profile: Profile, engine: MemoryRules, *, on_gpu: bool = True
) -> int:
    """Queries and results, and either f16 copies of the cache or the attention scores."""
    if scratch := _scratch(shape, profile, engine, on_gpu=on_gpu):
        return scratch.graph_bytes() + 2 * _row_bytes(shape, profile)
    tokens, cells = profile.ubatch_tokens, attended_cells(profile, engine)
    row, queries = _row_bytes(shape, profile), tokens * shape.heads * shape.key_length * _F32
    alive = 3 * queries + 7 * row if shape.latent else 6 * queries + 4 * row
    alive += _indexer_bytes(shape, profile, engine)
    if hybrid := _hybrid(shape, profile, engine):
        alive = max(alive, hybrid.graph_bytes())
        if not profile.flash_attention:
            return alive
    if not profile.flash_attention:
        scores = shape.heads * cells * tokens * _F32
        return alive + scores + (_mask_bytes(profile, engine) if shape.latent else 0)
    if not on_gpu or engine.copies_in_pools:
        return alive
    return alive + _copied_cache_bytes(shape, profile, engine)
