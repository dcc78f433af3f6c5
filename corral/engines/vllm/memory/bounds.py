"""Upper bounds of what vLLM uses beside weights and KV cache.

It measures a run with the largest batch, and gives what is left of its share of the GPU to the
cache. The parts follow the tensors that are alive together, and were fitted to the settings of
docs/measurements/vllm-h200.jsonl and, on two GPUs, vllm-h200-x2.jsonl: the cache is predicted
within 1% and never larger than reported.
"""

from __future__ import annotations

from corral.engines.vllm.memory.ranks import Ranks
from corral.model_files.config import ModelDimensions

MIB = 1024**2
_F32_BYTES, _COMPUTE_BYTES = 4, 2
# Held from the load on beside what weights.py counts of it. Measured up to 36 MiB on one GPU.
_LOADED_BYTES = 38 * MIB
# Code and workspaces of CUDA's libraries. Measured 230 MiB eager and 256 MiB compiled.
_LIBRARIES_BYTES = 264 * MIB
# What NCCL takes for the first batch, within the share, and what a rank loads more. Measured 323
# and up to 13 MiB on each of two tensor parallel ranks, nothing on two data parallel ones.
_COMMUNICATION_BYTES = 352 * MIB
# The same with more than two ranks: a guess.
_MORE_COMMUNICATION_BYTES = 1024 * MIB
# Communicators of NCCL: a rank makes them before it looks at what is free, so they come on top of
# its share. Measured 1418 and 1461 MiB on each of two ranks; of more ranks nothing is known.
_COMMUNICATORS_MIB = 1472
# vLLM's estimate of its CUDA graphs. Measured 1.24 and 1.25 GiB for 46 layers.
_GRAPH_BYTES_PER_LAYER = 28 * MIB
# Copies of the logits of all requests that sampling has alive: sorted, their indices, their sums.
# Measured 3.63 and 3.71; a draft has rows of its own, measured 4.00.
_SAMPLING_COPIES, _DRAFT_COPIES = 3.74, 4.02
# Copies of the hidden states of a batch that are alive beside them. Measured 2.24.
_HIDDEN_COPIES = 2.25
# Bytes an element of the rows of experts that a draft adds where tensor parallel ranks have whole
# experts. Measured 389 MiB of GLM-4.5-Air in FP8, which is 1.52; what they are for is not known.
_DRAFT_EXPERT_BYTES = 1.5
# Held beside the share: the CUDA context, graphs beyond their estimate, and what the first requests
# add. Measured up to 2120 MiB, without what the driver reserves, where FlashInfer is installed.
_CONTEXT_MIB = 2304


def activation_bytes(
    model: ModelDimensions, ranks: Ranks, *, batch_tokens: int, requests: int, mtp: bool
) -> int:
    """The peak of a run with the largest batch: in a layer, or when the logits are sampled.

    + batch_tokens: ``--max-num-batched-tokens``; + requests: ``--max-num-seqs``
    """
    copies = _SAMPLING_COPIES + (_DRAFT_COPIES if mtp else 0)
    rows = min(requests, batch_tokens)
    logits = int(rows * model.vocab_size * _F32_BYTES * copies)
    sampling = logits + int(batch_tokens * model.hidden_size * _COMPUTE_BYTES * _HIDDEN_COPIES)
    layer = batch_tokens * _layer_width(model, ranks) * _COMPUTE_BYTES
    experts = _expert_workspace_bytes(model, ranks, batch_tokens)
    if mtp and ranks.tensor > 1 and ranks.experts_whole:
        elements = batch_tokens * model.num_experts_per_tok * model.hidden_size
        experts += int(elements * _DRAFT_EXPERT_BYTES)
    return experts + max(sampling, layer)


def _layer_width(model: ModelDimensions, ranks: Ranks) -> int:
    """Elements a token that are alive together in a layer, beside experts."""
    feed_forward = 3 * model.intermediate_size // ranks.tensor
    return 3 * model.hidden_size + max(_attention_width(model, ranks), feed_forward)


def _attention_width(model: ModelDimensions, ranks: Ranks) -> int:
    """Queries, keys and values as projected, queries once more, and the result."""
    heads = model.num_attention_heads // ranks.tensor
    if model.latent:
        width = model.qk_nope_head_dim + model.qk_rope_head_dim
        return heads * (3 * width + model.qk_nope_head_dim + 3 * model.v_head_dim)
    kv_heads = max(1, model.kv_heads // ranks.tensor)
    return (3 * heads + 2 * kv_heads) * model.head_width


def _expert_workspace_bytes(model: ModelDimensions, ranks: Ranks, batch_tokens: int) -> int:
    """Kept between batches: two rows for each expert that a token uses; copies see all tokens.

    Source: TritonExperts.workspace_shapes.
    """
    inner, hidden = model.moe_intermediate_size // ranks.expert_cuts, model.hidden_size
    rows = max(inner, hidden) + max(2 * inner, hidden)
    tokens = batch_tokens * ranks.data
    return tokens * model.num_experts_per_tok * rows * _COMPUTE_BYTES


def graph_bytes(model: ModelDimensions, *, eager: bool) -> int:
    """What vLLM sets aside for CUDA graphs."""
    return 0 if eager else model.num_hidden_layers * _GRAPH_BYTES_PER_LAYER


def other_bytes(ranks: Ranks) -> int:
    """What is held within the share and belongs to no tensor of the model."""
    found = _LOADED_BYTES + _LIBRARIES_BYTES
    if ranks.count > 2:
        return found + _MORE_COMMUNICATION_BYTES
    return found + (_COMMUNICATION_BYTES if ranks.tensor > 1 else 0)


def context_mib(ranks: Ranks) -> int:
    """What a rank holds beside its share."""
    return _CONTEXT_MIB + (_COMMUNICATORS_MIB if ranks.count > 1 else 0)
