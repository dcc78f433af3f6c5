"""Models as vLLM reads them before any weights: config.json with public dimensions, tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from corral.smoke_model.byte_tokens import byte_tokens
from corral.smoke_model.tokenizer import Added, tokenizer_json

MODELS = ("GLM-4.5-Air-FP8", "GLM-4.7-Flash")

# Weights by channel, activations by token: the scheme of the FP8 repositories of zai-org. vLLM
# quantizes no embeddings, head, routers or projection of the MTP layer, whatever "ignore" says.
_FP8 = {
    "quant_method": "compressed-tensors",
    "format": "float-quantized",
    "quantization_status": "compressed",
    "global_compression_ratio": None,
    "kv_cache_scheme": None,
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "output_activations": None,
            "weights": {
                "type": "float",
                "num_bits": 8,
                "strategy": "channel",
                "symmetric": True,
                "dynamic": False,
            },
            "input_activations": {
                "type": "float",
                "num_bits": 8,
                "strategy": "token",
                "symmetric": True,
                "dynamic": True,
            },
        }
    },
}

_AIR: dict[str, Any] = {
    "architectures": ["Glm4MoeForCausalLM"],
    "model_type": "glm4_moe",
    "vocab_size": 151552,
    "hidden_size": 4096,
    "num_hidden_layers": 46,
    "num_attention_heads": 96,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "attention_bias": True,
    "use_qk_norm": False,
    "partial_rotary_factor": 0.5,
    "rope_theta": 1000000,
    "rope_scaling": None,
    "intermediate_size": 10944,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 1408,
    "n_routed_experts": 128,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "routed_scaling_factor": 1.0,
    "max_position_embeddings": 131072,
    "eos_token_id": [151329, 151336, 151338],
    "quantization_config": _FP8,
}

_FLASH: dict[str, Any] = {
    "architectures": ["Glm4MoeLiteForCausalLM"],
    "model_type": "glm4_moe_lite",
    "vocab_size": 154880,
    "hidden_size": 2048,
    "num_hidden_layers": 47,
    "num_attention_heads": 20,
    "num_key_value_heads": 20,
    "q_lora_rank": 768,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 192,
    "qk_rope_head_dim": 64,
    "v_head_dim": 256,
    "attention_bias": False,
    "partial_rotary_factor": 1.0,
    "rope_theta": 1000000,
    "rope_scaling": None,
    "intermediate_size": 10240,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 1536,
    "n_routed_experts": 64,
    "n_shared_experts": 1,
    "num_experts_per_tok": 4,
    "routed_scaling_factor": 1.8,
    "topk_method": "noaux_tc",
    "max_position_embeddings": 202752,
    "eos_token_id": [154820, 154827, 154829],
}

_COMMON: dict[str, Any] = {
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "num_nextn_predict_layers": 1,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-05,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
}

_CONFIGS = dict(zip(MODELS, (_AIR, _FLASH), strict=True))

# Small enough for a CPU: to try the script, not to measure.
_TINY = {
    "vocab_size": 2048,
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "moe_intermediate_size": 64,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "eos_token_id": [2],
}


def write_model(name: str, folder: Path, *, tiny: bool = False) -> None:
    """Everything that ``--load-format dummy`` reads of a model."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**_COMMON, **_CONFIGS[name]}
    if tiny:
        heads = 4 if "kv_lora_rank" in config else 2
        config = {**config, **_TINY, "num_key_value_heads": heads}
        config.pop("quantization_config", None)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer()))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": _END})
    )


_END = "<|endoftext|>"


def _tokenizer() -> dict[str, Any]:
    """One token for each byte, and an end of text."""
    vocabulary = byte_tokens()
    return tokenizer_json(vocabulary, [Added(len(vocabulary), _END)])
