"""The KV cache of a rank: bytes of a token, and the tokens and requests that some memory holds.

Source: v1/core/kv_cache_utils.py and v1/kv_cache_interface.py of vLLM 0.32. Exact on an H200 for
GLM-4.5-Air and GLM-4.7-Flash (tests/data/vllm-h200.jsonl).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from corral.model_files.config import ModelDimensions

# Tokens of one block, the smallest part that a request takes; on CPUs it is larger.
GPU_BLOCK_TOKENS, CPU_BLOCK_TOKENS = 16, 128


def token_bytes(model: ModelDimensions, *, tensor: int, element_bytes: int, mtp: bool) -> int:
    """Bytes of one token on one rank.

    Latent attention keeps one vector a token, whole on each rank; else K and V of the rank's heads,
    of which each rank has one at least. A draft layer has a cache of its own.
    """
    layers = model.num_hidden_layers + (model.num_nextn_predict_layers if mtp else 0)
    if model.latent:
        return layers * (model.kv_lora_rank + model.qk_rope_head_dim) * element_bytes
    return layers * 2 * max(1, model.kv_heads // tensor) * model.head_width * element_bytes


@dataclass(frozen=True, slots=True)
class Cache:
    """A KV cache of ``size_bytes``, of tokens of ``token_bytes``."""

    size_bytes: int
    token_bytes: int
    block_tokens: int = GPU_BLOCK_TOKENS

    @property
    def tokens(self) -> int:
        """Tokens that it holds, in whole blocks."""
        blocks = max(self.size_bytes, 0) // (self.token_bytes * self.block_tokens)
        return blocks * self.block_tokens

    def requests(self, length_tokens: int) -> float:
        """Requests of this length at a time, as vLLM reports its maximum concurrency."""
        blocks = math.ceil(length_tokens / self.block_tokens)
        return self.tokens / self.block_tokens / blocks

    def needed_bytes(self, length_tokens: int) -> int:
        """Bytes of one request of this length."""
        blocks = math.ceil(length_tokens / self.block_tokens)
        return blocks * self.block_tokens * self.token_bytes
