"""Profiles: how a model is served. They say what is meant; corral/engines turns that into flags."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from corral.catalog.gate import GoldenPrompt, Perplexity, Speed
from corral.schema import Frozen

# What all engines of GGUF know, and behind it what only one of them knows.
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

    temperature: float | None = Field(
        default=None, ge=0, description="0 always takes the likeliest token"
    )
    top_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="only the likeliest tokens that together have this share",
    )
    min_p: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="only tokens with at least this share of the likeliest one's",
    )
    top_k: int | None = Field(
        default=None, ge=0, description="only so many of the likeliest tokens; 0 for all"
    )
    repeat_penalty: float | None = Field(
        default=None, gt=0, description="above 1 a token that was used becomes less likely"
    )


class RopeScaling(Frozen):
    """Positions beyond the trained context, asked for explicitly."""

    type: Literal["linear", "yarn"] = Field(description="how positions are scaled")
    factor: float = Field(gt=1, description="how many times the original context")
    original_context_tokens: int | None = Field(
        default=None, gt=0, description="the model's trained context if unset"
    )


class Profile(Frozen):
    """How a model is served. File: catalog/profiles/<name>.toml."""

    model: str = Field(description="an entry of catalog/models/")
    quant: str = Field(description="one of the model's quants")
    engine: str = Field(description="an entry of catalog/engines/")
    alias: str | None = Field(default=None, description="name in the API; the model's if unset")

    context_tokens_per_slot: int = Field(gt=0, description="prompt and reply of one sequence")
    slots: int = Field(gt=0, description="sequences that are served at once")
    continuous_batching: bool = Field(
        default=True, description="a request joins others that are being answered"
    )
    batch_tokens: int = Field(
        default=2048, gt=0, description="most tokens of prompts in one step of the server"
    )
    ubatch_tokens: int = Field(
        default=512, gt=0, description="most tokens that are computed at once"
    )
    rope_scaling: RopeScaling | None = Field(
        default=None, description="a context beyond the one that the model was trained with"
    )

    kv_type_k: KvType = Field(
        default="f16", description="of keys in the KV cache; q6_0 and q8_KV are not in every engine"
    )
    kv_type_v: KvType = Field(
        default="f16",
        description="of values in the KV cache; a quantized one needs flash_attention",
    )
    kv_on_gpu: bool = Field(default=True, description="else the KV cache is in the host's memory")
    flash_attention: bool = Field(
        default=True, description="attention that never holds the whole matrix of scores"
    )

    placement: Placement = Field(
        default="gpu",
        description='"gpu": all weights there; "experts-on-cpu": the weights of experts stay on '
        'the host; "auto": as many on the GPUs as fit; "cpu": no GPU is used',
    )
    gpu_layers: int | Literal["all"] = Field(
        default="all", description='layers on the GPUs, or "all"'
    )
    cpu_moe_layers: int | None = Field(
        default=None, gt=0, description="experts of the first so many layers stay on the host"
    )
    tensor_overrides: tuple[str, ...] = Field(
        default=(), description='"pattern=buffer" over names of tensors, such as "exps=CPU"'
    )
    split_mode: SplitMode | None = Field(
        default=None, description="how several GPUs share a model; the engine's own way if unset"
    )
    tensor_split: tuple[float, ...] | None = Field(
        default=None, min_length=1, description="shares of the GPUs, in their order"
    )
    main_gpu: int | None = Field(default=None, ge=0, description="index within the instance's GPUs")
    gpu_reserve_mib: int = Field(
        default=1024, ge=0, description='kept free on each GPU by placement = "auto"'
    )

    threads: int | None = Field(
        default=None, gt=0, description="while a reply is generated; the engine decides if unset"
    )
    batch_threads: int | None = Field(default=None, gt=0, description="as threads if unset")
    load_mode: LoadMode = Field(
        default="mmap",
        description="how weights come into memory: mapped, locked there, read, or read past the "
        "page cache",
    )
    prompt_cache_mib: int = Field(default=8192, ge=0, description="host memory for saved prompts")

    chat_template: str | None = Field(
        default=None, description="one that the engine has built in, by name, instead of Jinja"
    )
    chat_template_file: str | None = Field(
        default=None, pattern=r"^[\w.-]+$", description="a file of catalog/chat-templates/"
    )
    reasoning_format: ReasoningFormat = Field(
        default="auto", description="how thoughts are told from the reply"
    )
    reasoning_budget: int | None = Field(
        default=None, ge=-1, description="tokens for thinking; 0 none, -1 without limit"
    )
    mtp_draft_tokens: int | None = Field(
        default=None, gt=0, description="drafted by the model's own MTP block"
    )
    sampling: Sampling = Field(default=Sampling(), description="what a request need not say")

    runtime_repack: bool | None = Field(
        default=None,
        description="weights on the host are laid out for its processor at the start (-rtr)",
    )
    attention_max_batch_mib: int | None = Field(
        default=None, gt=0, description="most scratch memory for the scores of attention (-amb)"
    )
    mla_mode: Literal[0, 1, 2, 3] | None = Field(
        default=None, description="how latent attention is computed (-mla)"
    )
    graph_reuse: bool | None = Field(
        default=None, description="a graph is kept from token to token (-gr)"
    )
    split_mode_graph_scheduling: bool | None = Field(
        default=None, description='a schedule of its own for split_mode = "graph" (-smgs)'
    )
    fused_moe: bool | None = Field(
        default=None, description="one kernel for the two halves of an expert; false is -no-fmoe"
    )
    extra_flags: tuple[str, ...] = Field(
        default=(),
        description="words for the server that no key above can say, as they are; flags that open "
        "the server or the host to more than requests with a key are refused",
    )

    metrics: bool = Field(default=True, description="GET /metrics, for Prometheus")
    listen: Literal["tcp", "unix"] = Field(
        default="tcp",
        description='"unix": on a socket in a folder of its own, for programs of the same host',
    )
    ready_timeout_seconds: int | None = Field(
        default=None,
        gt=0,
        description="for the weights to be loaded; counted from their size if unset",
    )
    golden: tuple[GoldenPrompt, ...] = Field(
        default=(), description="requests whose replies are known: a gate asks them"
    )
    speed: Speed = Field(default=Speed(), description="tokens/s that a gate asks for")
    perplexity: Perplexity | None = Field(
        default=None, description="the most perplexity that a gate lets pass"
    )
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
