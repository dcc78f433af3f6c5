"""config.json of a model in safetensors: the dimensions that memory depends on.

Keys and defaults as of transformers 5 (Glm4Config, Glm4MoeConfig, Glm4MoeLiteConfig).
"""

from __future__ import annotations

from typing import Annotated, Any

from corral_shared.text import printable_line
from pydantic import ConfigDict, Field, field_validator

from corral.errors import CorralError
from corral.schema import Frozen, parse_json

# Architectures whose weights and KV cache are counted here.
KNOWN_ARCHITECTURES = ("Glm4ForCausalLM", "Glm4MoeForCausalLM", "Glm4MoeLiteForCausalLM")
_LATENT = "Glm4MoeLiteForCausalLM"
# How weights may be quantized; each has FP8 weights with scales beside them.
KNOWN_QUANTIZATIONS = ("compressed-tensors", "fp8")

_Size = Annotated[int, Field(gt=0, lt=2**31)]
_Count = Annotated[int, Field(ge=0, lt=2**31)]


class UnknownModelError(Exception):
    """A model whose memory cannot be counted. The text is one sentence."""


class Quantization(Frozen):
    """How the weights are quantized."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    quant_method: str
    weight_block_size: tuple[_Size, _Size] | None = None


class ModelDimensions(Frozen):
    """Dimensions in elements; ``num_nextn_predict_layers``: MTP layers, which come last."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    architectures: tuple[str, ...] = Field(min_length=1)
    vocab_size: _Size
    hidden_size: _Size
    intermediate_size: _Size
    num_hidden_layers: _Size
    num_attention_heads: _Size
    num_key_value_heads: _Count = 0
    head_dim: _Count = 0
    max_position_embeddings: _Size
    num_nextn_predict_layers: _Count = 0
    n_routed_experts: _Count = 0
    num_experts_per_tok: _Count = 0
    moe_intermediate_size: _Count = 0
    kv_lora_rank: _Count = 0
    qk_rope_head_dim: _Count = 0
    qk_nope_head_dim: _Count = 0
    v_head_dim: _Count = 0
    partial_rotary_factor: float = Field(default=0.5, gt=0, le=1)
    quantization_config: Quantization | None = None

    @field_validator(
        "num_key_value_heads", "head_dim", "num_nextn_predict_layers", "n_routed_experts",
        "num_experts_per_tok", "moe_intermediate_size", "kv_lora_rank", "qk_rope_head_dim",
        "qk_nope_head_dim", "v_head_dim",
        mode="before",
    )  # fmt: skip
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        return 0 if value is None else value

    @property
    def architecture(self) -> str:
        """Name of the model's class."""
        return self.architectures[0]

    @property
    def latent(self) -> bool:
        """Whether attention is MLA, with one small latent vector a token."""
        return self.architecture == _LATENT

    @property
    def kv_heads(self) -> int:
        """Heads of K and V."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def block_rows(self) -> int:
        """Rows of a matrix with one scale, which no rank divides; 1 where each has its own."""
        block = self.quantization_config and self.quantization_config.weight_block_size
        return block[0] if block else 1

    @property
    def head_width(self) -> int:
        """Elements of one head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads


def read_dimensions(content: bytes) -> ModelDimensions:
    """The dimensions in a config.json. Raises UnknownModelError."""
    try:
        found = parse_json(ModelDimensions, content, where="config.json", next_step="-")
    except CorralError as error:
        raise UnknownModelError(f"config.json: {error.what}") from error
    if found.architecture not in KNOWN_ARCHITECTURES:
        known = ", ".join(KNOWN_ARCHITECTURES)
        shown = printable_line(found.architecture)[:100]
        raise UnknownModelError(f'architecture "{shown}" is unknown to Corral (known: {known})')
    method = found.quantization_config.quant_method if found.quantization_config else ""
    if method and method not in KNOWN_QUANTIZATIONS:
        known = ", ".join(KNOWN_QUANTIZATIONS)
        shown = printable_line(method)[:100]
        raise UnknownModelError(f'quantization "{shown}" is unknown to Corral (known: {known})')
    if not found.head_width:
        raise UnknownModelError("config.json: hidden_size is smaller than num_attention_heads")
    if found.latent and not (found.kv_lora_rank and found.qk_rope_head_dim):
        raise UnknownModelError("config.json: kv_lora_rank or qk_rope_head_dim is missing")
    return found
