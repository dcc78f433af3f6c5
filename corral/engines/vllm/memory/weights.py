"""Bytes of weights on the fullest rank, by vLLM's rules, and what it counts as weights.

Source: glm4.py, glm4_moe.py, glm4_moe_lite.py, deepseek_v2.py (attention), glm4_moe_mtp.py,
layers/linear.py, layers/vocab_parallel_embedding.py and llm_base_proposer.py of vLLM 0.32.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from corral.engines.vllm.memory.ranks import Ranks
from corral.model_files.config import ModelDimensions
from corral.model_files.safetensors import Tensor

# Type that the model computes with: bfloat16, also where the file has float32.
COMPUTE_BYTES = 2
_F32_BYTES = 4
_FP8_TYPES = ("F8_E4M3", "F8_E5M2")
# DEFAULT_VOCAB_PADDING_SIZE: rows of embeddings and output are padded to a multiple.
_VOCABULARY_PADDING = 64

_LAYER = re.compile(r"model\.layers\.([0-9]+)\.")
_EXPERT = re.compile(r"\.mlp\.experts\.[0-9]+\.(gate|up|down)_proj\.")
_SCALES = ("weight_scale", "weight_scale_inv", "input_scale", "k_scale", "v_scale")
# Kept in float32 whatever the file has.
_ROUTER = (".mlp.gate.weight", ".mlp.gate.e_score_correction_bias")
# A draft layer uses those of the model itself.
_SHARED_WITH_DRAFT = (".embed_tokens.weight", ".shared_head.head.weight")

_DIVIDED_ROWS = ("q_proj", "q_b_proj", "kv_b_proj", "gate_proj", "up_proj", "gate_up_proj")
_DIVIDED_COLUMNS = ("o_proj", "down_proj")
_KV = ("k_proj", "v_proj")
_VOCABULARY = ("model.embed_tokens.weight", "lm_head.weight")
# vLLM reports what torch has allocated, which is more than the tensors: torch leaves the rest of a
# block, up to 1 MiB, with its tensor. Measured 34 to 83 MiB; what is above 34 is in the bounds.
_ALLOCATED_BYTES = 34 * 1024**2
# Latent attention takes it once, with the weights, where FlashInfer is installed, as vLLM asks for.
# Measured 0.125 GiB, with and without MTP.
_LATENT_WORKSPACE_BYTES = 128 * 1024**2


def weights_bytes(
    tensors: Iterable[Tensor], model: ModelDimensions, ranks: Ranks, *, mtp: bool
) -> int:
    """Bytes on the rank that holds most; ``mtp``: whether the MTP layers draft tokens.

    Experts that do not divide evenly are counted as on the rank with one more.
    """
    whole = 0
    experts = 0
    for tensor in tensors:
        if not _is_loaded(tensor.name, model, mtp=mtp):
            continue
        if _EXPERT.search(tensor.name):
            experts += _expert_bytes(tensor, ranks.expert_cuts)
        else:
            whole += _elements(tensor, model, ranks.tensor) * _element_bytes(tensor)
    workspace = _LATENT_WORKSPACE_BYTES if model.latent else 0
    return whole + _owned(experts, model, ranks) + _rope_bytes(model) + workspace + _ALLOCATED_BYTES


def _owned(experts_bytes: int, model: ModelDimensions, ranks: Ranks) -> int:
    """The part of all experts that one rank owns; all experts of a model have one size."""
    count = model.n_routed_experts or 1
    return experts_bytes // count * math.ceil(count / ranks.expert_owners)


def _is_loaded(name: str, model: ModelDimensions, *, mtp: bool) -> bool:
    layer = layer_of(name)
    if layer is None or layer < model.num_hidden_layers:
        return True
    return mtp and not name.endswith(_SHARED_WITH_DRAFT)


def layer_of(name: str) -> int | None:
    """The layer of a tensor, None for tensors of the whole model."""
    found = _LAYER.match(name)
    return int(found[1]) if found else None


def _element_bytes(tensor: Tensor) -> int:
    if tensor.type in _FP8_TYPES:
        return 1
    is_scale = tensor.name.rpartition(".")[2] in _SCALES
    return _F32_BYTES if is_scale or tensor.name.endswith(_ROUTER) else COMPUTE_BYTES


def _elements(tensor: Tensor, model: ModelDimensions, parts: int) -> int:
    """Elements of one rank, of ``parts`` that divide a layer."""
    module, _, kind = tensor.name.rpartition(".")
    projection = module.rpartition(".")[2]
    if tensor.name in _VOCABULARY:
        rows = math.ceil(tensor.shape[0] / _VOCABULARY_PADDING) * _VOCABULARY_PADDING
        return rows * math.prod(tensor.shape[1:]) // parts
    if projection in _KV:
        return _divided(tensor, 0, min(parts, model.kv_heads))
    if projection in _DIVIDED_ROWS:
        return _divided(tensor, 0, parts)
    if projection in _DIVIDED_COLUMNS and kind != "bias":
        return _divided(tensor, 1, parts)
    return tensor.elements


def _expert_bytes(tensor: Tensor, parts: int) -> int:
    axis = 1 if ".down_proj." in tensor.name else 0
    return _divided(tensor, axis, parts) * _element_bytes(tensor)


def _divided(tensor: Tensor, axis: int, parts: int) -> int:
    """Elements of one part; a scale of the whole matrix, or of its other side, is not divided."""
    if axis >= len(tensor.shape) or tensor.shape[axis] == 1:
        return tensor.elements
    rest = math.prod(tensor.shape[:axis]) * math.prod(tensor.shape[axis + 1 :])
    return math.ceil(tensor.shape[axis] / parts) * rest


def _rope_bytes(model: ModelDimensions) -> int:
    """The table of sines and cosines, one for all layers."""
    rotated = model.qk_rope_head_dim if model.latent else model.head_width
    share = 1.0 if model.latent else model.partial_rotary_factor
    return int(model.max_position_embeddings * rotated * share) * COMPUTE_BYTES
