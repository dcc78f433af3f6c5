"""Profiles: how a model is served, free of any engine's flags (corral/engines has those)."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from corral.catalog.gate import GoldenPrompt, Perplexity, Speed
from corral.catalog.patterns import PatternError, translated
from corral.catalog.watchdog import Watchdog
from corral.schema import Frozen

# Types of all engines; q6_0 and q8_KV exist in ik_llama.cpp alone, fp8 in vLLM alone.
KvType = Literal[
    "f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl", "q6_0", "q8_KV", "fp8"
]
UNQUANTIZED: frozenset[KvType] = frozenset({"f32", "f16", "bf16"})
SplitMode = Literal["none", "layer", "row", "tensor", "graph", "attn"]
Placement = Literal["gpu", "experts-on-cpu", "auto", "cpu"]
Numa = Literal["distribute", "isolate", "numactl"]
NumaMemory = Literal["interleave", "bind", "preferred", "local"]
LoadMode = Literal["mmap", "mmap+mlock", "mlock", "none", "direct"]
ReasoningFormat = Literal["auto", "none", "deepseek", "deepseek-legacy"]

_IMAGE_TOKENS = 1024
_DRAFT_TOKENS = 16
_MODEL_QUANT = r"^[^/\s]+/[^/\s]+$"
# Cores as the kernel lists them, cpuset(7).
_CORES = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")

# Keys without effect under a placement, which decides them itself.
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
    """Sampling defaults of the server; a request may override them."""

    temperature: float | None = Field(
        default=None, ge=0, description="0 always picks the likeliest token"
    )
    top_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="only the likeliest tokens with this total probability",
    )
    min_p: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="only tokens with at least this share of the likeliest token's probability",
    )
    top_k: int | None = Field(
        default=None, ge=0, description="only this many of the likeliest tokens; 0 for all"
    )
    repeat_penalty: float | None = Field(
        default=None, gt=0, description="above 1, tokens already used become less likely"
    )


class RopeScaling(Frozen):
    """Explicit scaling of positions beyond the trained context."""

    type: Literal["linear", "yarn"] = Field(description="scaling method")
    factor: float = Field(gt=1, description="multiple of the original context")
    original_context_tokens: int | None = Field(
        default=None, gt=0, description="original context; the model's trained context if unset"
    )


class Profile(Frozen):
    """How a model is served. File: catalog/profiles/<name>.toml."""

    model: str = Field(description="an entry of catalog/models/")
    quant: str = Field(description="one of the model's quants")
    engine: str = Field(description="an entry of catalog/engines/")
    alias: str | None = Field(
        default=None, description="model name in the API; the model's own if unset"
    )

    context_tokens_per_slot: int = Field(gt=0, description="prompt and reply of one sequence")
    slots: int = Field(gt=0, description="concurrent sequences")
    continuous_batching: bool = Field(
        default=True, description="new requests join the running batch"
    )
    batch_tokens: int = Field(
        default=2048, gt=0, description="most prompt tokens in one step of the server"
    )
    ubatch_tokens: int = Field(default=512, gt=0, description="most tokens computed at once")
    rope_scaling: RopeScaling | None = Field(
        default=None, description="for a context beyond the one that the model was trained with"
    )

    kv_type_k: KvType = Field(
        default="f16",
        description="type of keys in the KV cache; not every engine has every type, and for vLLM "
        "f16 is the type that the model computes with",
    )
    kv_type_v: KvType = Field(
        default="f16",
        description="type of values in the KV cache; a quantized one needs flash_attention",
    )
    tune_kv_types: tuple[KvType, ...] = Field(
        default=(),
        description="types that `corral tune` may try for keys and values, as they change answers; "
        "none: it leaves both as they are",
    )
    kv_on_gpu: bool = Field(default=True, description="false: the KV cache is in host memory")
    flash_attention: bool = Field(
        default=True, description="attention that never holds the whole matrix of scores"
    )

    placement: Placement = Field(
        default="gpu",
        description='"gpu": all weights on the GPUs; "experts-on-cpu": expert weights in host '
        'memory; "auto": as many weights on the GPUs as fit; "cpu": no GPU is used',
    )
    gpu_layers: int | Literal["all"] = Field(
        default="all", description='layers on the GPUs, or "all"'
    )
    cpu_moe_layers: int | None = Field(
        default=None, gt=0, description="number of first layers whose experts are in host memory"
    )
    tensor_overrides: tuple[str, ...] = Field(
        default=(), description='"pattern=buffer" by tensor name, such as "exps=CPU"'
    )
    split_mode: SplitMode | None = Field(
        default=None, description="how several GPUs share a model; the engine decides if unset"
    )
    tensor_split: tuple[float, ...] | None = Field(
        default=None, min_length=1, description="share of each GPU, in order"
    )
    main_gpu: int | None = Field(default=None, ge=0, description="index within the instance's GPUs")
    gpu_reserve_mib: int = Field(
        default=1024, ge=0, description='kept free on each GPU by placement = "auto"'
    )

    tensor_parallel: int = Field(default=1, gt=0, description="GPUs that divide each layer")
    data_parallel: int = Field(
        default=1, gt=0, description="copies of the model, each on tensor_parallel GPUs"
    )
    expert_parallel: bool = Field(
        default=False, description="each GPU has whole experts, instead of a part of each expert"
    )
    gpu_memory_utilization: float = Field(
        default=0.9, gt=0, lt=1, description="share of each GPU's memory for weights and KV cache"
    )
    kv_cache_mib: int | None = Field(
        default=None,
        gt=0,
        description="memory of each rank for the KV cache, whatever gpu_memory_utilization leaves; "
        "needed without GPUs",
    )
    cpu_cores: tuple[str, ...] = Field(
        default=(),
        description='cores of each rank without GPUs, such as ["0-15", "16-31"]; '
        "the engine decides if unset",
    )
    eager: bool = Field(
        default=False, description="no compilation and no CUDA graphs: a faster start, slower after"
    )
    prefix_caching: bool | None = Field(
        default=None, description="keep the KV cache of prompts for others with the same beginning"
    )

    threads: int | None = Field(
        default=None, gt=0, description="threads for generation; the engine decides if unset"
    )
    batch_threads: int | None = Field(
        default=None, gt=0, description="threads for prompts; as threads if unset"
    )
    numa: Numa | None = Field(
        default=None,
        description="threads on a host with several NUMA nodes: spread over all, kept on the node "
        "where the server starts, or on the cores of numa_memory",
    )
    numa_memory: NumaMemory | None = Field(
        default=None,
        description='memory of numa_nodes, as numactl sets it: "interleave" over them, "bind" to '
        "them with their cores, or prefer one; the kernel decides if unset",
    )
    numa_nodes: str = Field(
        default="all",
        pattern=r"^(all|[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)$",
        description='NUMA nodes of numa_memory, such as "0" or "0-1"',
    )
    load_mode: LoadMode = Field(
        default="mmap",
        description="how weights are loaded: mapped, mapped and locked, read and locked, read, or "
        "read past the page cache",
    )
    prompt_cache_mib: int = Field(default=8192, ge=0, description="host memory for saved prompts")

    chat_template: str | None = Field(
        default=None, description="name of a template built into the engine, instead of Jinja"
    )
    chat_template_file: str | None = Field(
        default=None, pattern=r"^[\w.-]+$", description="a file of catalog/chat-templates/"
    )
    reasoning_format: ReasoningFormat = Field(
        default="auto", description="how reasoning is separated from the reply"
    )
    reasoning_budget: int | None = Field(
        default=None, ge=-1, description="tokens for reasoning; 0 for none, -1 for no limit"
    )
    tool_call_parser: str | None = Field(
        default=None, description="parser that turns the model's tool calls into those of the API"
    )
    reasoning_parser: str | None = Field(
        default=None, description="parser that separates reasoning from the reply"
    )
    mtp_draft_tokens: int | None = Field(
        default=None, gt=0, description="tokens drafted by the model's own MTP block"
    )
    draft_model: str | None = Field(
        default=None,
        pattern=_MODEL_QUANT,
        description='a smaller model that drafts tokens, as "MODEL/QUANT" of catalog/models/; its '
        "vocabulary must be that of the model",
    )
    draft_tokens: int = Field(
        default=_DRAFT_TOKENS, gt=0, description="most tokens drafted by draft_model at once"
    )
    lora: tuple[Annotated[str, Field(pattern=_MODEL_QUANT)], ...] = Field(
        default=(), description='LoRA adapters, each as "MODEL/QUANT" of catalog/models/'
    )
    sampling: Sampling = Field(default=Sampling(), description="defaults for requests")

    vision: bool = Field(
        default=False, description="requests may have images; the quant needs a projector"
    )
    image_tokens: int = Field(
        default=_IMAGE_TOKENS,
        gt=0,
        le=16384,
        description="most tokens of one image; larger ones are scaled",
    )
    runtime_repack: bool | None = Field(
        default=None,
        description="repack weights in host memory for the processor at start (-rtr)",
    )
    attention_max_batch_mib: int | None = Field(
        default=None, gt=0, description="most scratch memory for attention scores (-amb)"
    )
    mla_mode: Literal[0, 1, 2, 3] | None = Field(
        default=None, description="how latent attention is computed (-mla)"
    )
    graph_reuse: bool | None = Field(
        default=None, description="reuse the compute graph from token to token (-gr)"
    )
    split_mode_graph_scheduling: bool | None = Field(
        default=None, description='separate scheduling for split_mode = "graph" (-smgs)'
    )
    fused_moe: bool | None = Field(
        default=None, description="one kernel for both halves of an expert; false is -no-fmoe"
    )
    extra_flags: tuple[str, ...] = Field(
        default=(),
        description="more arguments of the server, passed unchanged; flags that open the server or "
        "the host to more than requests with a key are refused",
    )

    metrics: bool = Field(default=True, description="GET /metrics, for Prometheus")
    listen: Literal["tcp", "unix"] = Field(
        default="tcp",
        description='"unix": a socket in a folder of its own, for programs on the same host',
    )
    ready_timeout_seconds: int | None = Field(
        default=None,
        gt=0,
        description="time to start and load the weights; from engine and size if unset",
    )
    golden: tuple[GoldenPrompt, ...] = Field(
        default=(), description="requests with known replies, sent by the gate"
    )
    probe_tool_call: bool | None = Field(
        default=None,
        description="gate and verify require a well-formed tool call; "
        "if unset, where tool_call_parser is set",
    )
    probe_reasoning: bool | None = Field(
        default=None,
        description="gate and verify require reasoning apart from the reply; "
        "if unset, where reasoning_parser is set",
    )
    speed: Speed = Field(default=Speed(), description="tokens/s that the gate requires")
    perplexity: Perplexity | None = Field(
        default=None, description="highest perplexity that the gate allows"
    )
    soak_seconds: int = Field(
        default=0, ge=0, description="time a new generation must stay healthy before it is kept"
    )

    watchdog: Watchdog | None = Field(
        default=None, description="restart a server that hangs; not watched for that if unset"
    )

    @property
    def companions(self) -> tuple[tuple[str, str], ...]:
        """Model and quant of each file of weights beside the model: a draft model, adapters."""
        named = (*((self.draft_model,) if self.draft_model else ()), *self.lora)
        pairs = (one.split("/") for one in named)
        return tuple((model, quant) for model, quant in pairs)

    @field_validator("gpu_layers")
    @classmethod
    def _countable(cls, gpu_layers: int | Literal["all"]) -> int | Literal["all"]:
        if gpu_layers != "all" and gpu_layers < 0:
            raise ValueError('must be a number of layers, or "all"')
        return gpu_layers

    @field_validator("threads", "batch_threads", mode="before")
    @classmethod
    def _threads(cls, threads: object) -> object:
        if threads == -1:
            raise ValueError("-1 is not a number of threads: leave the key out for all cores")
        return threads

    @field_validator("tensor_overrides")
    @classmethod
    def _overrides(cls, overrides: tuple[str, ...]) -> tuple[str, ...]:
        for override in overrides:
            if problem := _override_problem(override):
                raise ValueError(f'"{override}" {problem}')
        return overrides

    @field_validator("cpu_cores")
    @classmethod
    def _cores(cls, cores: tuple[str, ...]) -> tuple[str, ...]:
        for one in cores:
            if not _CORES.fullmatch(one):
                raise ValueError(f'"{one}" is not a list of cores, such as "0-15" or "0,2,4-7"')
        return cores

    @field_validator("tensor_split")
    @classmethod
    def _shares(cls, shares: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if shares is not None and (min(shares) < 0 or sum(shares) == 0):
            raise ValueError("shares must be 0 or more, and not all of them 0")
        return shares

    @model_validator(mode="after")
    def _consistent(self) -> Profile:
        if problems := [*self._contradictions(), *self._without_effect()]:
            raise ValueError("; ".join(problems))
        return self

    def _contradictions(self) -> list[str]:
        needs_flash = self.kv_type_v not in UNQUANTIZED and not self.flash_attention
        checks = {
            "kv_type_v is quantized, which needs flash_attention = true": needs_flash,
            "ubatch_tokens is larger than batch_tokens": self.ubatch_tokens > self.batch_tokens,
            "chat_template and chat_template_file are both set": bool(
                self.chat_template and self.chat_template_file
            ),
            "draft_model and mtp_draft_tokens are both set": bool(
                self.draft_model and self.mtp_draft_tokens
            ),
            "draft_tokens has no effect without draft_model": self.draft_tokens != _DRAFT_TOKENS
            and not self.draft_model,
            "image_tokens has no effect without vision = true": self.image_tokens != _IMAGE_TOKENS
            and not self.vision,
            "golden: a prompt with an image needs vision = true": not self.vision
            and any(prompt.image for prompt in self.golden),
            'numa = "numactl" needs numa_memory': self.numa == "numactl" and not self.numa_memory,
            "numa_nodes has no effect without numa_memory, or with local": self.numa_nodes != "all"
            and self.numa_memory in (None, "local"),
            'numa_memory = "preferred" needs one node in numa_nodes': (
                self.numa_memory == "preferred" and not self.numa_nodes.isdigit()
            ),
        }
        return [problem for problem, applies in checks.items() if applies]

    def _without_effect(self) -> list[str]:
        return [
            f'{key} has no effect with placement = "{self.placement}"'
            for key in _DECIDED_BY_PLACEMENT[self.placement]
            if getattr(self, key) != type(self).model_fields[key].default
        ]


def _override_problem(override: str) -> str | None:
    """Both engines split the list at each comma, and an entry at its first equals sign."""
    pattern, equals, buffer = override.partition("=")
    if not (pattern and equals and buffer) or "=" in buffer:
        return 'is not "pattern=buffer"'
    if "," in override:
        return "has a comma, at which the engines would split it"
    try:
        translated(pattern)
    except PatternError as error:
        return str(error)
    return None
