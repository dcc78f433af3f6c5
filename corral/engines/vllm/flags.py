"""Flags and variables of `vllm serve`, as of vLLM 0.32 and 0.33.

Names are those of `vllm serve --help=all`. Its parser (vllm/utils/argparse_utils.py) reads
underscores as dashes, takes the beginning of a flag for the flag, and `--flag.key value` for a part
of the flag's JSON.
"""

from __future__ import annotations

import json
from typing import Any

from corral.catalog.profile import KvType, Profile
from corral.engines.flag_table import Flag, FlagTable, Settings, Value, Variable
from corral.engines.vllm.opening_flags import REASONS

# Running requests get this long at a stop; with 0 the API server hangs until it is killed.
SHUTDOWN_SECONDS = 30

# f16 stands for 16 bits: the type that the model computes with, which is bfloat16 for most.
KV_TYPES: dict[KvType, str] = {"f16": "auto", "bf16": "bfloat16", "fp8": "fp8"}

_ADDRESS = "the instance's address and port"
_KEY_FILE = "the instance's key file; a flag would show a secret"
_LOCK = "the lock file, which pins every byte that is served"
_GPUS = "the instance's gpus"
_RANKS = "the keys tensor_parallel and data_parallel, by which memory is counted"
_UNIT = "the unit, which kills the server a little later"
_JOURNAL = "Corral, whose health checks would fill the journal"
_METRICS = "Corral, which counts running requests by its metrics"
_PAGE = "Corral, which serves no web page"
_SAMPLING = {
    "temperature": "temperature",
    "top_p": "top_p",
    "min_p": "min_p",
    "top_k": "top_k",
    "repeat_penalty": "repetition_penalty",
}


def _kv_type(s: Settings) -> Value:
    """None for a type that the engine has not; `corral.engines.vllm.problems` refuses those."""
    return KV_TYPES.get(s.profile.kv_type_k)


def _kv_cache_bytes(s: Settings) -> Value:
    return s.profile.kv_cache_mib and s.profile.kv_cache_mib * 1024**2


def _speculative(s: Settings) -> Value:
    tokens = s.profile.mtp_draft_tokens
    return _json({"method": "mtp", "num_speculative_tokens": tokens}) if tokens else None


def _sampling(s: Settings) -> Value:
    """Defaults of requests, over those of the model's generation_config.json."""
    given = s.profile.sampling.model_dump(exclude_none=True)
    return _json({_SAMPLING[key]: value for key, value in given.items()}) if given else None


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _cores(profile: Profile) -> str | None:
    return "|".join(profile.cpu_cores) or None


ROWS = (
    Flag("--model", ("model",), owner=_LOCK),
    Flag("--served-model-name", ("alias",), lambda s: s.alias),
    Flag("--host", value=lambda s: s.endpoint.address, owner=_ADDRESS),
    Flag("--port", value=lambda s: s.endpoint.port, owner=_ADDRESS),
    Flag("--uds", value=lambda s: s.endpoint.socket, owner=_ADDRESS),
    # Keys in a YAML file, as all flags could be: they show in no list of processes.
    Flag("--config", value=lambda s: s.key_file, also=("--api-key",), owner=_KEY_FILE),
    Flag(
        "--tensor-parallel-size",
        ("tensor_parallel",),
        lambda s: s.profile.tensor_parallel,
        also=("-tp",),
    ),
    Flag(
        "--data-parallel-size",
        ("data_parallel",),
        lambda s: s.profile.data_parallel if s.profile.data_parallel > 1 else None,
        also=("-dp",),
    ),
    Flag(
        "--enable-expert-parallel",
        ("expert_parallel",),
        lambda s: s.profile.expert_parallel,
        also=("--no-enable-expert-parallel", "-ep"),
    ),
    Flag(
        "--pipeline-parallel-size",
        also=(
            *("-pp", "--prefill-context-parallel-size", "-pcp"),
            *("--decode-context-parallel-size", "-dcp"),
        ),
        owner=_RANKS,
    ),
    Flag("--device-ids", owner=_GPUS),
    Flag(
        "--max-model-len",
        ("context_tokens_per_slot",),
        lambda s: s.profile.context_tokens_per_slot,
    ),
    Flag("--max-num-seqs", ("slots",), lambda s: s.profile.slots),
    Flag("--max-num-batched-tokens", ("batch_tokens",), lambda s: s.profile.batch_tokens),
    Flag(
        "--gpu-memory-utilization",
        ("gpu_memory_utilization",),
        lambda s: f"{s.profile.gpu_memory_utilization:g}" if s.on_gpu else None,
        also=("--device-memory-utilization",),
    ),
    Flag("--kv-cache-memory-bytes", ("kv_cache_mib",), _kv_cache_bytes),
    Flag("--kv-cache-dtype", ("kv_type_k", "kv_type_v"), _kv_type),
    Flag(
        "--enforce-eager",
        ("eager",),
        lambda s: s.profile.eager,
        also=("--no-enforce-eager",),
    ),
    Flag("--enable-prefix-caching", ("prefix_caching",), lambda s: s.profile.prefix_caching),
    Flag(
        "--no-enable-prefix-caching",
        ("prefix_caching",),
        lambda s: s.profile.prefix_caching is False,
    ),
    Flag(
        "--speculative-config",
        ("mtp_draft_tokens",),
        _speculative,
        also=("-sc", "--spec-method", "--spec-model", "--spec-tokens"),
    ),
    Flag("--tool-call-parser", ("tool_call_parser",), lambda s: s.profile.tool_call_parser),
    Flag(
        "--enable-auto-tool-choice",
        ("tool_call_parser",),
        lambda s: s.profile.tool_call_parser is not None,
        also=("--no-enable-auto-tool-choice",),
    ),
    Flag("--reasoning-parser", ("reasoning_parser",), lambda s: s.profile.reasoning_parser),
    Flag("--chat-template", ("chat_template_file",), lambda s: s.chat_template_file),
    Flag(
        "--override-generation-config",
        tuple(f"sampling.{key}" for key in _SAMPLING),
        _sampling,
        also=("--generation-config",),
    ),
    Flag("--shutdown-timeout", value=lambda _: SHUTDOWN_SECONDS, owner=_UNIT),
    Flag(
        "--disable-access-log-for-endpoints",
        value=lambda _: "/health,/metrics",
        owner=_JOURNAL,
    ),
    Flag(
        "--disable-fastapi-docs",
        value=lambda _: True,
        also=("--no-disable-fastapi-docs", "--enable-offline-docs", "--no-enable-offline-docs"),
        owner=_PAGE,
    ),
    Flag("--disable-log-stats", owner=_METRICS),
    Flag("--load-format", owner=_LOCK),
)  # fmt: skip
"""In the order of the command lines."""

VARIABLES = (
    # One list of cores for each rank; without it vLLM wants a NUMA node for each.
    Variable("VLLM_CPU_OMP_THREADS_BIND", ("cpu_cores",), _cores),
)

FLAGS = FlagTable(
    ROWS,
    refused=REASONS,
    own_variables=VARIABLES,
    abbreviates=True,
    # --diffusion-config, beside -dcp.
    whole=frozenset({"-dc"}),
)
