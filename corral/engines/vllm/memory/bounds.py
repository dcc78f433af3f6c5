"""Upper bounds of what vLLM uses beside weights and KV cache.

It measures a run with the largest batch, and gives what is left of its share of the GPU to the
cache. The parts below were fitted to the runs of tests/data/vllm-h200.jsonl, so that the cache is
predicted within 1% and never larger than reported; other batches follow the sizes of the tensors
that are alive together.
"""

from __future__ import annotations

from corral.engines.vllm.memory.ranks import Ranks
from corral.model_files.config import ModelDimensions

MIB = 1024**2
_F32_BYTES, _COMPUTE_BYTES = 4, 2
# Code and workspaces of CUDA's libraries that load with the first batch, and what torch.compile
# adds to them: its kernels, and buffers that it keeps between them.
_LIBRARIES_BYTES = 640 * MIB
_COMPILED_BYTES = 384 * MIB
# Buffers of NCCL and of the custom all-reduce on each rank of several.
_COMMUNICATION_BYTES = 1024 * MIB
# The estimate that vLLM makes of its CUDA graphs; it grows with the layers.
_GRAPH_BYTES_PER_LAYER = 28 * MIB
# Copies of the logits of all requests that sampling has alive: sorted, their indices, their sums.
_SAMPLING_COPIES = 3.5
# Held beside the share: the CUDA context, and graphs beyond their estimate. Measured 787 and 891
# MiB, without what the driver reserves.
CONTEXT_MIB = 1024


def activation_bytes(
    model: ModelDimensions, ranks: Ranks, *, batch_tokens: int, requests: int, mtp: bool
) -> int:
    """The peak of a run with the largest batch.

    + batch_tokens: ``--max-num-batched-tokens``; + requests: ``--max-num-seqs``
    """
    rows = min(requests, batch_tokens) * (2 if mtp else 1)
    sampling = int(rows * model.vocab_size * _F32_BYTES * _SAMPLING_COPIES)
    layer = batch_tokens * _COMPUTE_BYTES * _widths(model, ranks)
    return _expert_workspace_bytes(model, batch_tokens) + max(sampling, layer)


def _widths(model: ModelDimensions, ranks: Ranks) -> int:
    """Elements a token that are alive together: residuals, and attention or feed-forward."""
    attention = 3 * model.num_attention_heads * model.head_width // ranks.tensor
    feed_forward = 3 * model.intermediate_size // ranks.tensor
    return 4 * model.hidden_size + max(attention, feed_forward)


def _expert_workspace_bytes(model: ModelDimensions, batch_tokens: int) -> int:
    """Kept between batches: a row for each expert that a token uses, before and after."""
    inner = model.moe_intermediate_size
    row = max(2 * inner, model.hidden_size) + inner
    return batch_tokens * model.num_experts_per_tok * row * _COMPUTE_BYTES


def graph_bytes(model: ModelDimensions, *, eager: bool) -> int:
    """What vLLM sets aside for CUDA graphs."""
    return 0 if eager else model.num_hidden_layers * _GRAPH_BYTES_PER_LAYER


def other_bytes(ranks: Ranks, *, eager: bool) -> int:
    """What is held and belongs to no tensor of the model."""
    compiled = 0 if eager else _COMPILED_BYTES
    return _LIBRARIES_BYTES + compiled + (_COMMUNICATION_BYTES if ranks.count > 1 else 0)
