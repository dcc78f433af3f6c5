"""Profiles: how a model is served. They say what is meant; corral/engines turns that into flags."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from corral.catalog.gate import GoldenPrompt, Perplexity, Speed
from corral.schema import Frozen

# What both engines know, and behind it what only ik_llama.cpp knows.
KvType = Literal[
    "f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl", "q6_0", "q8_KV"
]
UNQUANTIZED: frozenset[KvType] = frozenset({"f32", "f16", "bf16"})
SplitMode = Literal["none", "layer", "row", "tensor", "graph", "attn"]
Placement = Literal["gpu", "experts-on-cpu", "auto", "cpu"]
LoadMode = Literal["mmap", "mmap+mlock", "mlock", "none", "direct"]
ReasoningFormat = Literal["auto", "none", "deepseek", "deepseek-legacy"]

# Keys that say nothing under a placement, which decides them itself.
_DECIDED_BY_PLACEMENT: dict[Placement, tuple[str, ...]] = {
    "gpu": (),
    "experts-on-cpu": ("gpu_layers", "cpu_moe_layers", "tensor_overrides"),
    "auto": ("gpu_layers", "cpu_moe_layers", "tensor_overrides", "tensor_split"),
    "cpu": (
        "gpu_layers",
        "cpu_moe_layers",
        "tensor_overrides",
        "tensor_split",
        "split_mode",
        "main_gpu",
        "kv_on_gpu",
    ),
}


class Sampling(Frozen):
    """Sampling defaults of the server; a request may still say otherwise."""

    temperature: float | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    min_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    repeat_penalty: float | None = Field(default=None, gt=0)


class RopeScaling(Frozen):
    """Positions beyond the trained context, asked for explicitly."""

    type: Literal["linear", "yarn"]
    factor: float = Field(gt=1, description="how many times the original context")
    original_context_tokens: int | None = Field(
        default=None, gt=0, description="the model's trained context if unset"
    )


class Profile(Frozen):
    """How a model is served. File: catalog/profiles/<name>.toml."""

    model: str
    quant: str
    engine: str
    alias: str | None = Field(default=None, description="name in the API; the model's if unset")

    context_tokens_per_slot: int = Field(gt=0)
    slots: int = Field(gt=0)
    continuous_batching: bool = True
    batch_tokens: int = Field(default=2048, gt=0)
    ubatch_tokens: int = Field(default=512, gt=0)
    rope_scaling: RopeScaling | None = None

    kv_type_k: KvType = "f16"
    kv_type_v: KvType = "f16"
    kv_on_gpu: bool = True
    flash_attention: bool = True

    placement: Placement = "gpu"
    gpu_layers: int | Literal["all"] = "all"
    cpu_moe_layers: int | None = Field(
        default=None, gt=0, description="experts of the first so many layers stay on the host"
    )
    tensor_overrides: tuple[str, ...] = Field(
        default=(), description='"pattern=buffer" over names of tensors, such as "exps=CPU"'
    )
    split_mode: SplitMode | None = None
    tensor_split: tuple[float, ...] | None = Field(
        default=None, min_length=1, description="shares of the GPUs, in their order"
    )
    main_gpu: int | None = Field(default=None, ge=0, description="index within the instance's GPUs")
    gpu_reserve_mib: int = Field(
        default=1024, ge=0, description='kept free on each GPU by placement = "auto"'
    )

    threads: int | None = Field(default=None, gt=0)
    batch_threads: int | None = Field(default=None, gt=0, description="as threads if unset")
    load_mode: LoadMode = "mmap"
    prompt_cache_mib: int = Field(default=8192, ge=0, description="host memory for saved prompts")

    chat_template: str | None = Field(
        default=None, description="one that the engine has built in, by name, instead of Jinja"
    )
    chat_template_file: str | None = Field(
        default=None, pattern=r"^[\w.-]+$", description="a file of catalog/chat-templates/"
    )
    reasoning_format: ReasoningFormat = "auto"
    reasoning_budget: int | None = Field(
        default=None, ge=-1, description="tokens for thinking; 0 none, -1 without limit"
    )
    mtp_draft_tokens: int | None = Field(
        default=None, gt=0, description="drafted by the model's own MTP block"
    )
    sampling: Sampling = Sampling()

    runtime_repack: bool | None = Field(default=None, description="ik_llama.cpp: -rtr")
    attention_max_batch_mib: int | None = Field(
        default=None, gt=0, description="ik_llama.cpp: -amb"
    )
    mla_mode: Literal[0, 1, 2, 3] | None = Field(default=None, description="ik_llama.cpp: -mla")
    graph_reuse: bool | None = Field(default=None, description="ik_llama.cpp: -gr")
    split_mode_graph_scheduling: bool | None = Field(
        default=None, description="ik_llama.cpp: -smgs"
    )
    fused_moe: bool | None = Field(default=None, description="ik_llama.cpp: false is -no-fmoe")
    extra_flags: tuple[str, ...] = Field(
        default=(),
        description="words for the server that no key above can say, as they are; flags that open "
        "the server or the host to more than requests with a key are refused",
    )

    metrics: bool = True
    listen: Literal["tcp", "unix"] = "tcp"
    ready_timeout_seconds: int | None = Field(default=None, gt=0)
    golden: tuple[GoldenPrompt, ...] = ()
    speed: Speed = Speed()
    perplexity: Perplexity | None = None
    soak_seconds: int = Field(default=0, ge=0, description="healthy for so long before it is kept")

    @field_validator("gpu_layers")
    @classmethod
    def _countable(cls, gpu_layers: int | Literal["all"]) -> int | Literal["all"]:
        if gpu_layers != "all" and gpu_layers < 0:
            raise ValueError('say how many, or "all"')
        return gpu_layers

    @field_validator("tensor_overrides")
    @classmethod
    def _overrides(cls, overrides: tuple[str, ...]) -> tuple[str, ...]:
        for override in overrides:
            if problem := _override_problem(override):
                raise ValueError(f'"{override}" {problem}')
        return overrides

    @field_validator("tensor_split")
    @classmethod
    def _shares(cls, shares: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if shares is not None and (min(shares) < 0 or sum(shares) == 0):
            raise ValueError("shares are zero or more, and not all of them zero")
        return shares

    @model_validator(mode="after")
    def _consistent(self) -> Profile:
        if problems := [*self._contradictions(), *self._without_meaning()]:
            raise ValueError("; ".join(problems))
        return self

    def _contradictions(self) -> list[str]:
        needs_flash = self.kv_type_v not in UNQUANTIZED and not self.flash_attention
        found = {
            "kv_type_v is quantized, which needs flash_attention = true": needs_flash,
            "ubatch_tokens is larger than batch_tokens": self.ubatch_tokens > self.batch_tokens,
            "chat_template and chat_template_file are both set": bool(
                self.chat_template and self.chat_template_file
            ),
        }
        return [problem for problem, is_so in found.items() if is_so]

    def _without_meaning(self) -> list[str]:
        return [
            f'{key} says nothing with placement = "{self.placement}"'
            for key in _DECIDED_BY_PLACEMENT[self.placement]
            if getattr(self, key) != type(self).model_fields[key].default
        ]


def _override_problem(override: str) -> str | None:
    """Both engines split the list at each comma, and an entry at its first equals sign."""
    pattern, equals, buffer = override.partition("=")
    if not (pattern and equals and buffer) or "=" in buffer:
        return 'is not "pattern=buffer"'
    if "," in override:
        return "has a comma, at which the engines would cut it in two"
    try:
        re.compile(pattern)
    except re.error as error:
        return f"is no regular expression: {error}"
    return None
