"""Tensors of the GLM models in safetensors, by the dimensions of their config.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from corral.model_files.config import read_dimensions
from corral.model_files.model import SafetensorsModel
from corral.model_files.safetensors import Tensor
from tests.unit.safetensors_files import Shape

GLM_4_5_AIR: dict[str, Any] = {
    "architectures": ["Glm4MoeForCausalLM"], "vocab_size": 151552, "hidden_size": 4096,
    "intermediate_size": 10944, "num_hidden_layers": 46, "num_attention_heads": 96,
    "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 131072,
    "num_nextn_predict_layers": 1, "n_routed_experts": 128, "n_shared_experts": 1,
    "num_experts_per_tok": 8, "moe_intermediate_size": 1408, "first_k_dense_replace": 1,
    "attention_bias": True, "use_qk_norm": False, "partial_rotary_factor": 0.5,
}  # fmt: skip
GLM_4_7: dict[str, Any] = GLM_4_5_AIR | {
    "hidden_size": 5120, "intermediate_size": 12288, "num_hidden_layers": 92,
    "max_position_embeddings": 202752, "n_routed_experts": 160, "moe_intermediate_size": 1536,
    "first_k_dense_replace": 3, "use_qk_norm": True,
}  # fmt: skip
GLM_4_7_FLASH: dict[str, Any] = {
    "architectures": ["Glm4MoeLiteForCausalLM"], "vocab_size": 154880, "hidden_size": 2048,
    "intermediate_size": 10240, "num_hidden_layers": 47, "num_attention_heads": 20,
    "num_key_value_heads": 20, "max_position_embeddings": 202752, "num_nextn_predict_layers": 1,
    "n_routed_experts": 64, "n_shared_experts": 1, "num_experts_per_tok": 4,
    "moe_intermediate_size": 1536, "first_k_dense_replace": 1, "kv_lora_rank": 512,
    "q_lora_rank": 768, "qk_nope_head_dim": 192, "qk_rope_head_dim": 64, "v_head_dim": 256,
}  # fmt: skip
GLM_4_32B: dict[str, Any] = {
    "architectures": ["Glm4ForCausalLM"], "vocab_size": 151552, "hidden_size": 6144,
    "intermediate_size": 23040, "num_hidden_layers": 61, "num_attention_heads": 48,
    "num_key_value_heads": 2, "head_dim": 128, "max_position_embeddings": 32768,
    "attention_bias": False,
}  # fmt: skip

WeightsType = Literal["bf16", "fp8-channel", "fp8-block"]
_BLOCK = 128


def model_of(config: dict[str, Any], kind: WeightsType = "bf16") -> SafetensorsModel:
    """The model; ``kind``: type of its linear layers, all others are bf16."""
    method = {"bf16": None, "fp8-channel": "compressed-tensors", "fp8-block": "fp8"}[kind]
    blocks = {"weight_block_size": [_BLOCK, _BLOCK]} if kind == "fp8-block" else {}
    quantization = {"quantization_config": {"quant_method": method, **blocks}} if method else {}
    content = json.dumps(config | quantization).encode()
    tensors = tuple(tensors_of(config, kind))
    size = sum(tensor.size_bytes for tensor in tensors)
    return SafetensorsModel(tensors, read_dimensions(content), "", size)


def tensors_of(config: dict[str, Any], kind: WeightsType = "bf16") -> Iterator[Tensor]:
    """All tensors; their places in files do not matter here."""
    for name, (dtype, shape) in _Names(config, kind).all().items():
        yield Tensor(name, dtype, shape, 0)


@dataclass
class _Names:
    config: dict[str, Any]
    kind: WeightsType
    found: dict[str, tuple[str, Shape]] = field(default_factory=dict)

    def all(self) -> dict[str, tuple[str, Shape]]:
        c = self.config
        self._plain("model.embed_tokens.weight", c["vocab_size"], c["hidden_size"])
        self._plain("lm_head.weight", c["vocab_size"], c["hidden_size"])
        self._plain("model.norm.weight", c["hidden_size"])
        layers, mtp = c["num_hidden_layers"], c.get("num_nextn_predict_layers", 0)
        for number in range(layers + mtp):
            prefix = f"model.layers.{number}"
            self._attention(f"{prefix}.self_attn")
            self._feed_forward(f"{prefix}.mlp", number)
            norms = ["input_layernorm", "post_attention_layernorm"]
            if c["architectures"] == ["Glm4ForCausalLM"]:
                norms += ["post_self_attn_layernorm", "post_mlp_layernorm"]
            for norm in norms:
                self._plain(f"{prefix}.{norm}.weight", c["hidden_size"])
            if number >= layers:
                self._next_token(prefix)
        return self.found

    def _plain(self, name: str, *shape: int, dtype: str = "BF16") -> None:
        self.found[name] = (dtype, shape)

    def _linear(self, name: str, rows: int, columns: int, *, bias: bool = False) -> None:
        if self.kind == "bf16":
            self._plain(f"{name}.weight", rows, columns)
        elif self.kind == "fp8-channel":
            self._plain(f"{name}.weight", rows, columns, dtype="F8_E4M3")
            self._plain(f"{name}.weight_scale", rows, 1)
        else:
            blocks = (-(-rows // _BLOCK), -(-columns // _BLOCK))
            self._plain(f"{name}.weight", rows, columns, dtype="F8_E4M3")
            self._plain(f"{name}.weight_scale_inv", *blocks, dtype="F32")
        if bias:
            self._plain(f"{name}.bias", rows)

    def _attention(self, prefix: str) -> None:
        c = self.config
        hidden, heads = c["hidden_size"], c["num_attention_heads"]
        if "kv_lora_rank" in c:
            width = c["qk_nope_head_dim"] + c["qk_rope_head_dim"]
            self._linear(f"{prefix}.q_a_proj", c["q_lora_rank"], hidden)
            self._plain(f"{prefix}.q_a_layernorm.weight", c["q_lora_rank"])
            self._linear(f"{prefix}.q_b_proj", heads * width, c["q_lora_rank"])
            kv_rows = c["kv_lora_rank"] + c["qk_rope_head_dim"]
            self._linear(f"{prefix}.kv_a_proj_with_mqa", kv_rows, hidden)
            self._plain(f"{prefix}.kv_a_layernorm.weight", c["kv_lora_rank"])
            out = heads * (c["qk_nope_head_dim"] + c["v_head_dim"])
            self._linear(f"{prefix}.kv_b_proj", out, c["kv_lora_rank"])
            self._linear(f"{prefix}.o_proj", hidden, heads * c["v_head_dim"])
            return
        head, kv = c["head_dim"], c["num_key_value_heads"] * c["head_dim"]
        bias = c["attention_bias"]
        self._linear(f"{prefix}.q_proj", heads * head, hidden, bias=bias)
        self._linear(f"{prefix}.k_proj", kv, hidden, bias=bias)
        self._linear(f"{prefix}.v_proj", kv, hidden, bias=bias)
        self._linear(f"{prefix}.o_proj", hidden, heads * head)
        if c.get("use_qk_norm"):
            self._plain(f"{prefix}.q_norm.weight", head)
            self._plain(f"{prefix}.k_norm.weight", head)

    def _feed_forward(self, prefix: str, number: int) -> None:
        c = self.config
        hidden = c["hidden_size"]
        if "n_routed_experts" not in c:
            self._linear(f"{prefix}.gate_up_proj", 2 * c["intermediate_size"], hidden)
            self._linear(f"{prefix}.down_proj", hidden, c["intermediate_size"])
        elif number < c["first_k_dense_replace"]:
            self._gated(prefix, c["intermediate_size"])
        else:
            self._plain(f"{prefix}.gate.weight", c["n_routed_experts"], hidden)
            correction = f"{prefix}.gate.e_score_correction_bias"
            self._plain(correction, c["n_routed_experts"], dtype="F32")
            shared = c["n_shared_experts"] * c["moe_intermediate_size"]
            self._gated(f"{prefix}.shared_experts", shared)
            for expert in range(c["n_routed_experts"]):
                self._gated(f"{prefix}.experts.{expert}", c["moe_intermediate_size"])

    def _gated(self, prefix: str, inner: int) -> None:
        hidden = self.config["hidden_size"]
        self._linear(f"{prefix}.gate_proj", inner, hidden)
        self._linear(f"{prefix}.up_proj", inner, hidden)
        self._linear(f"{prefix}.down_proj", hidden, inner)

    def _next_token(self, prefix: str) -> None:
        c = self.config
        for norm in ("enorm", "hnorm", "shared_head.norm"):
            self._plain(f"{prefix}.{norm}.weight", c["hidden_size"])
        self._plain(f"{prefix}.eh_proj.weight", c["hidden_size"], 2 * c["hidden_size"])
        for name in ("embed_tokens", "shared_head.head"):
            self._plain(f"{prefix}.{name}.weight", c["vocab_size"], c["hidden_size"])
