"""Environment variables of the servers: which of Corral's flags they can stand for.

Mainline, as of commit 0c1e57098bba: `llama-server --help` names them. ik_llama.cpp, as of commit
8337e4cd3861: common/common.cpp, gpt_params_parse_from_env; it has fewer, and its switches know only
``1`` and ``true``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from corral.catalog.entries import EngineKind


@dataclass(frozen=True)
class EngineVariables:
    """Variables of one engine.

    + valued: flag -> variable that takes the flag's value; + switches: flag -> variable and value
    """

    valued: Mapping[str, str]
    switches: Mapping[str, tuple[str, str]]


_BOTH = {
    "--model": "LLAMA_ARG_MODEL",
    "--host": "LLAMA_ARG_HOST",
    "--port": "LLAMA_ARG_PORT",
    "--ctx-size": "LLAMA_ARG_CTX_SIZE",
    "--parallel": "LLAMA_ARG_N_PARALLEL",
    "--cache-type-k": "LLAMA_ARG_CACHE_TYPE_K",
    "--cache-type-v": "LLAMA_ARG_CACHE_TYPE_V",
    "--batch-size": "LLAMA_ARG_BATCH",
    "--ubatch-size": "LLAMA_ARG_UBATCH",
    "--n-gpu-layers": "LLAMA_ARG_N_GPU_LAYERS",
    "--threads": "LLAMA_ARG_THREADS",
    "--chat-template": "LLAMA_ARG_CHAT_TEMPLATE",
}

_SWITCHES_OF_BOTH = {
    "--no-cont-batching": ("LLAMA_ARG_CONT_BATCHING", "0"),
    "--metrics": ("LLAMA_ARG_ENDPOINT_METRICS", "1"),
}

_LLAMA_CPP = EngineVariables(
    valued={
        **_BOTH,
        "--alias": "LLAMA_ARG_ALIAS",
        "--api-key-file": "LLAMA_ARG_API_KEY_FILE",
        "--flash-attn": "LLAMA_ARG_FLASH_ATTN",
        "--rope-scaling": "LLAMA_ARG_ROPE_SCALING_TYPE",
        "--rope-scale": "LLAMA_ARG_ROPE_SCALE",
        "--yarn-orig-ctx": "LLAMA_ARG_YARN_ORIG_CTX",
        "--fit": "LLAMA_ARG_FIT",
        "--n-cpu-moe": "LLAMA_ARG_N_CPU_MOE",
        "--override-tensor": "LLAMA_ARG_OVERRIDE_TENSOR",
        "--split-mode": "LLAMA_ARG_SPLIT_MODE",
        "--tensor-split": "LLAMA_ARG_TENSOR_SPLIT",
        "--main-gpu": "LLAMA_ARG_MAIN_GPU",
        "--load-mode": "LLAMA_ARG_LOAD_MODE",
        "--cache-ram": "LLAMA_ARG_CACHE_RAM",
        "--chat-template-file": "LLAMA_ARG_CHAT_TEMPLATE_FILE",
        "--reasoning-format": "LLAMA_ARG_THINK",
        "--reasoning-budget": "LLAMA_ARG_THINK_BUDGET",
        "--spec-type": "LLAMA_ARG_SPEC_TYPE",
        "--spec-draft-n-max": "LLAMA_ARG_SPEC_DRAFT_N_MAX",
        "--temp": "LLAMA_ARG_TEMPERATURE",
        "--top-p": "LLAMA_ARG_TOP_P",
        "--min-p": "LLAMA_ARG_MIN_P",
        "--top-k": "LLAMA_ARG_TOP_K",
        "--repeat-penalty": "LLAMA_ARG_REPEAT_PENALTY",
    },
    switches={
        **_SWITCHES_OF_BOTH,
        "--cpu-moe": ("LLAMA_ARG_CPU_MOE", "1"),
        "--no-kv-offload": ("LLAMA_ARG_KV_OFFLOAD", "0"),
        "--jinja": ("LLAMA_ARG_JINJA", "1"),
        "--no-jinja": ("LLAMA_ARG_JINJA", "0"),
        "--no-ui": ("LLAMA_ARG_UI", "0"),
        "--offline": ("LLAMA_ARG_OFFLINE", "1"),
    },
)

# LLAMA_ARG_FLASH_ATTN is left out: it would take the flag's "on" for off.
_IK_LLAMA_CPP = EngineVariables(
    valued={**_BOTH, "--alias": "LLAMA_ARG_MODEL_ALIAS"},
    switches={**_SWITCHES_OF_BOTH, "--mlock": ("LLAMA_ARG_MLOCK", "1")},
)

VARIABLES: Mapping[EngineKind, EngineVariables] = {
    "llama.cpp": _LLAMA_CPP,
    "ik_llama.cpp": _IK_LLAMA_CPP,
}

# Of these the first that names a tensor counts; variables are read in the server's own order.
ORDERED_FLAGS = frozenset({"--cpu-moe", "--n-cpu-moe", "--override-tensor"})
