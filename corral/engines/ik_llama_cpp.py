"""ik_llama.cpp: how a profile becomes flags of its llama-server.

Flags as of commit 8337e4cd3861 (2026-08-15), common/common.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator, Set

from corral.catalog.entries import Engine
from corral.catalog.profile import KvType, Profile
from corral.engines import chat_templates
from corral.engines.base import (
    SHARED_FLAGS,
    Problem,
    batching_words,
    extra_flag_problems,
    gpu_problems,
    kv_words,
    optional,
    placement_words,
    sampling_words,
    thread_words,
)
from corral.engines.ik_kv_types import BUILT_PAIRS, kv_problems
from corral.plan.host import Endpoint, ResolvedPlacement

PROGRAM = "llama-server"

# Flags that no profile may give as extra_flags, by whose business they are.
TAKEN_FLAGS: dict[str, tuple[str, ...]] = {
    **SHARED_FLAGS,
    "the key flash_attention": ("-fa", "--flash-attn", "-no-fa", "--no-flash-attn"),
    "Corral, which proves the fit itself": ("--fit-margin", "--dry-run", "-dr"),
    "the key load_mode": ("--mlock", "--no-mmap"),
    "the key runtime_repack": ("-rtr", "--run-time-repack"),
    "the key attention_max_batch_mib": ("-amb", "--attention-max-batch"),
    "the key mla_mode": ("-mla", "--mla-use"),
    "the key graph_reuse": ("-gr", "--graph-reuse", "-no-gr", "--no-graph-reuse"),
    "the key split_mode_graph_scheduling": ("-smgs", "--split-mode-graph-scheduling"),
    "the key fused_moe": ("-no-fmoe", "--no-fused-moe"),
    "the key mtp_draft_tokens": (
        *("-mtp", "--multi-token-prediction", "-no-mtp", "--no-multi-token-prediction"),
        # A stage of --spec-type may name a model and a file of its own.
        *("--draft", "--draft-max", "--draft-n", "--spec-type"),
    ),
}

_SPLIT_MODES = ("none", "layer", "graph", "attn")
# Modes that, of the architectures that Corral knows, only these have: for others the server goes on
# with layer (llama.cpp, is_model_split_supported).
GRAPH_MODES, GRAPH_ARCHITECTURES = ("graph", "attn"), ("glm4moe",)
LOAD_MODES: dict[str, tuple[str, ...]] = {
    "mmap": (),
    "mmap+mlock": ("--mlock",),
    "mlock": ("--mlock", "--no-mmap"),
    "none": ("--no-mmap",),
}
_CHOOSE_MAINLINE = 'choose engine = "llama.cpp"'

# Public also with a key: /health, /v1/health, /models, /v1/models, /api/tags and / (server.cpp).
_KEYED_ROUTES = (
    "GET /props",
    "GET /slots",
    "POST /v1/chat/completions",
    "POST /v1/completions",
    "POST /completion",
    "POST /tokenize",
)


def problems(profile: Profile, *, gpus: int) -> list[Problem]:
    """All that the engine cannot do for a profile on so many GPUs."""
    return [
        *_foreign_values(profile),
        *kv_problems(profile, gpus),
        *_companions(profile, gpus),
        *gpu_problems(profile, gpus),
        *extra_flag_problems(profile, TAKEN_FLAGS),
    ]


def _foreign_values(profile: Profile) -> Iterator[Problem]:
    if profile.listen == "unix":
        what = 'listen = "unix": ik_llama.cpp has no unix sockets'
        yield Problem(what, f'set listen = "tcp", or {_CHOOSE_MAINLINE}')
    if profile.split_mode and profile.split_mode not in _SPLIT_MODES:
        what = f'split_mode = "{profile.split_mode}" is llama.cpp\'s'
        next_step = f"choose split_mode from {', '.join(_SPLIT_MODES)}, or {_CHOOSE_MAINLINE}"
        yield Problem(what, next_step)
    if profile.load_mode not in LOAD_MODES:
        what = f'load_mode = "{profile.load_mode}" is llama.cpp\'s'
        yield Problem(what, f"choose load_mode from {', '.join(LOAD_MODES)}, {_CHOOSE_MAINLINE}")
    if profile.reasoning_budget is not None and profile.reasoning_budget > 0:
        what = "reasoning_budget: ik_llama.cpp knows no number of tokens, only 0 and -1"
        yield Problem(what, f"set reasoning_budget to 0 or -1, or {_CHOOSE_MAINLINE}")
    if profile.chat_template and profile.chat_template not in chat_templates.IK_LLAMA_CPP:
        what = f'chat_template = "{profile.chat_template}" is not built into ik_llama.cpp'
        yield Problem(what, f"choose from {', '.join(sorted(chat_templates.IK_LLAMA_CPP))}")


def _companions(profile: Profile, gpus: int) -> Iterator[Problem]:
    """Keys that would be without effect, or stop the server, beside the others."""
    if profile.runtime_repack and "mmap" in profile.load_mode:
        what = f'runtime_repack cannot keep load_mode = "{profile.load_mode}"'
        yield Problem(what, 'set load_mode = "none" or "mlock"')
    if profile.split_mode_graph_scheduling and profile.split_mode != "graph":
        what = 'split_mode_graph_scheduling needs split_mode = "graph"'
        yield Problem(what, 'set split_mode = "graph", or remove split_mode_graph_scheduling')
    if gpus == 1 and profile.split_mode in GRAPH_MODES:
        what = f'split_mode = "{profile.split_mode}" needs two GPUs or more, the instance has 1'
        yield Problem(what, "give the instance more GPUs, or remove split_mode")


def keyed_routes(profile: Profile) -> tuple[str, ...]:
    """Routes, as ``METHOD path``, that must refuse a request without a key."""
    return (*_KEYED_ROUTES, "GET /metrics") if profile.metrics else _KEYED_ROUTES


def cmake_options(
    engine: Engine,
    *,
    backend: str,
    cuda_architectures: str | None,
    kv_pairs: Set[tuple[KvType, KvType]],
) -> list[str]:
    """``-D`` options of a build, sorted, so that equal builds have equal keys.

    + kv_pairs: types of K and V on a GPU; those beyond the default need every kernel built
    """
    options = dict(engine.cmake_options)
    if backend == "cuda":
        options |= engine.cmake_options_cuda
        options["CMAKE_CUDA_ARCHITECTURES"] = cuda_architectures or "native"
        if kv_pairs - BUILT_PAIRS:
            options["GGML_CUDA_FA_ALL_QUANTS"] = "ON"
    return [f"-D{name}={value}" for name, value in sorted(options.items())]


def argv(
    profile: Profile,
    *,
    program: str,
    model: str,
    alias: str,
    endpoint: Endpoint,
    key_file: str,
    placement: ResolvedPlacement,
    chat_template_file: str | None,
) -> tuple[str, ...]:
    """The command line; ``model`` is the first shard. ``--ctx-size`` counts all slots together."""
    words = [program, "--model", model, "--alias", alias]
    words += ["--host", str(endpoint.address), "--port", str(endpoint.port)]
    words += ["--api-key-file", key_file, *kv_words(profile), *batching_words(profile)]
    words += ["--n-gpu-layers", layers(placement), *placement_words(profile, placement)]
    words += thread_words(profile) + list(LOAD_MODES[profile.load_mode])
    words += ["--cache-ram", str(profile.prompt_cache_mib), *own_words(profile)]
    words += _template(profile, chat_template_file)
    words += ["--reasoning-format", profile.reasoning_format]
    words += optional("--reasoning-budget", profile.reasoning_budget)
    words += _drafting(profile) + sampling_words(profile.sampling)
    words += ["--metrics"] if profile.metrics else []
    return (*words, "--webui", "none", *profile.extra_flags)


def layers(placement: ResolvedPlacement) -> str:
    """A number only: more than any model has stands for all."""
    return "999" if placement.gpu_layers == "all" else str(placement.gpu_layers)


def own_words(profile: Profile) -> list[str]:
    """Flags that only this engine has."""
    words = ["--run-time-repack"] if profile.runtime_repack else []
    words += optional("--attention-max-batch", profile.attention_max_batch_mib)
    words += optional("--mla-use", profile.mla_mode)
    if profile.graph_reuse is not None:
        words.append("--graph-reuse" if profile.graph_reuse else "--no-graph-reuse")
    if profile.split_mode_graph_scheduling:
        words.append("--split-mode-graph-scheduling")
    # On is the default, and the flag for it is gone.
    return words + (["--no-fused-moe"] if profile.fused_moe is False else [])


def _template(profile: Profile, file: str | None) -> list[str]:
    """Jinja is off by default, as a built-in template wants it."""
    if profile.chat_template:
        return ["--chat-template", profile.chat_template]
    return ["--jinja", *optional("--chat-template-file", file)]


def _drafting(profile: Profile) -> list[str]:
    if profile.mtp_draft_tokens is None:
        return []
    return ["--multi-token-prediction", "--draft-max", str(profile.mtp_draft_tokens)]


def fit_argv(
    profile: Profile,  # noqa: ARG001 - as the other engines have it
    *,
    programs: str,  # noqa: ARG001
    model: str,  # noqa: ARG001
    placement: ResolvedPlacement,  # noqa: ARG001
) -> tuple[str, ...] | None:
    """None: the engine has no program that counts its memory."""
    return None
