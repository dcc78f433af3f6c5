"""Mainline llama.cpp: how a profile becomes flags of llama-server.

Flags as of commit 0c1e57098bba (2026-10-01).
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
from corral.plan.host import Endpoint, ResolvedPlacement

PROGRAM = "llama-server"

# Flags that no profile may give as extra_flags, by whose business they are.
TAKEN_FLAGS: dict[str, tuple[str, ...]] = {
    **SHARED_FLAGS,
    "the lock file, which knows every byte that is served": (
        *SHARED_FLAGS["the lock file, which knows every byte that is served"],
        *("-dr", "--docker-repo", "-hf", "-mmu"),
        *("-hfd", "-hfrd", "--hf-repo-draft", "--spec-draft-hf", "--offline"),
    ),
    "the instance's socket": ("--reuse-port", "--api-prefix"),
    "Corral, which proves the fit itself": (
        *("-fit", "-fitt", "--fit-target", "-fitc", "--fit-ctx"),
    ),
    "the key load_mode": ("-lm", "--load-mode"),
    "the key mtp_draft_tokens": ("--spec-type", "--spec-draft-n-max"),
    "the table sampling, as temperature": ("--temperature",),
    "Corral, which serves no web page": ("--ui", "--no-ui", "--webui", "--no-webui"),
}

# common/arg.cpp, kv_cache_types.
_KV_TYPES: frozenset[KvType] = frozenset(
    {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"}
)
# ggml-cuda/fattn.cu, ggml_cuda_fattn_kv_type_supported; f32 is converted and runs as f16.
_CUDA_KV_TYPES = _KV_TYPES - {"iq4_nl"}
# ggml/CMakeLists.txt, the default of GGML_CUDA_FA_QUANTS.
_BUILT_PAIRS = frozenset({"f16-f16", "q4_0-q4_0", "q8_0-q8_0", "bf16-bf16"})

_SPLIT_MODES = ("none", "layer", "row", "tensor")
LOAD_MODES = {
    "mmap": "mmap",
    "mmap+mlock": "mmap+mlock",
    "mlock": "mlock",
    "none": "none",
    "direct": "dio",
}
_OF_IK = (
    "runtime_repack",
    "attention_max_batch_mib",
    "mla_mode",
    "graph_reuse",
    "split_mode_graph_scheduling",
    "fused_moe",
)
_CHOOSE_IK = 'choose engine = "ik_llama.cpp"'

# Beside these only /health, /v1/health and the web page (which we switch off) answer without a key.
_KEYED_ROUTES = (
    "GET /v1/models",
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
        *_foreign_keys(profile),
        *_values(profile, gpus),
        *gpu_problems(profile, gpus),
        *extra_flag_problems(profile, TAKEN_FLAGS),
    ]


def _foreign_keys(profile: Profile) -> Iterator[Problem]:
    for key in _OF_IK:
        if getattr(profile, key) is not None:
            yield Problem(f"{key} is ik_llama.cpp's", f"remove {key} or {_CHOOSE_IK}")


def _values(profile: Profile, gpus: int) -> Iterator[Problem]:
    on_gpu = gpus > 0 and profile.kv_on_gpu and profile.flash_attention
    known = _CUDA_KV_TYPES if on_gpu else _KV_TYPES
    for key in ("kv_type_k", "kv_type_v"):
        kv_type = getattr(profile, key)
        if kv_type not in known:
            what = f'{key} = "{kv_type}" is not known to llama.cpp{" in CUDA" if on_gpu else ""}'
            yield Problem(what, f"choose {key} from {', '.join(sorted(known))}")
    if profile.split_mode and profile.split_mode not in _SPLIT_MODES:
        what = f'split_mode = "{profile.split_mode}" is ik_llama.cpp\'s'
        yield Problem(what, f"choose split_mode from {', '.join(_SPLIT_MODES)}, or {_CHOOSE_IK}")
    if profile.split_mode == "row" and gpus:
        what = 'split_mode = "row": llama.cpp has no split buffers in CUDA any more'
        yield Problem(what, 'set split_mode = "layer" or "tensor"')
    if profile.split_mode == "tensor" and not profile.flash_attention:
        yield Problem('split_mode = "tensor" needs flash attention', "set flash_attention = true")
    if profile.chat_template and profile.chat_template not in chat_templates.LLAMA_CPP:
        what = f'chat_template = "{profile.chat_template}" is not built into llama.cpp'
        yield Problem(what, f"choose from {', '.join(sorted(chat_templates.LLAMA_CPP))}")


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

    + kv_pairs: types of K and V on a GPU; a pair without a kernel is converted, which is slow
    """
    options = dict(engine.cmake_options)
    if backend == "cuda":
        options |= engine.cmake_options_cuda
        options["CMAKE_CUDA_ARCHITECTURES"] = cuda_architectures or "native"
        pairs = {"-".join("f16" if kind == "f32" else kind for kind in pair) for pair in kv_pairs}
        if pairs - _BUILT_PAIRS:
            options["GGML_CUDA_FA_QUANTS"] = ";".join(sorted(_BUILT_PAIRS | pairs))
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
    words = [program, "--model", model, "--alias", alias, *_listen(endpoint)]
    words += ["--api-key-file", key_file, *kv_words(profile), *batching_words(profile)]
    words += device_words(profile, placement) + thread_words(profile)
    words += ["--cache-ram", str(profile.prompt_cache_mib)]
    words += _template(profile, chat_template_file)
    words += ["--reasoning-format", profile.reasoning_format]
    words += optional("--reasoning-budget", profile.reasoning_budget)
    words += _drafting(profile) + sampling_words(profile.sampling)
    words += ["--metrics"] if profile.metrics else []
    return (*words, "--no-ui", "--offline", *profile.extra_flags)


def fit_argv(
    profile: Profile, *, programs: str, model: str, placement: ResolvedPlacement
) -> tuple[str, ...] | None:
    """The engine's own count of what the same words about memory need; rows in MiB."""
    words = [f"{programs}/llama-fit-params", "--fit-print", "on", "--model", model]
    return (*words, *kv_words(profile), *device_words(profile, placement))


def device_words(profile: Profile, placement: ResolvedPlacement) -> list[str]:
    """What is where, as llama-server and the programs with its parser take it."""
    words = ["--n-gpu-layers", str(placement.gpu_layers), "--fit", "off"]
    words += placement_words(profile, placement)
    return [*words, "--load-mode", LOAD_MODES[profile.load_mode]]


def _listen(endpoint: Endpoint) -> list[str]:
    """A name that ends in .sock makes llama-server listen on a unix socket; port is then unused."""
    if endpoint.socket:
        return ["--host", endpoint.socket]
    return ["--host", str(endpoint.address), "--port", str(endpoint.port)]


def _template(profile: Profile, file: str | None) -> list[str]:
    """With Jinja on, the name of a built-in template would be taken for the template itself."""
    if profile.chat_template:
        return ["--no-jinja", "--chat-template", profile.chat_template]
    return ["--jinja", *optional("--chat-template-file", file)]


def _drafting(profile: Profile) -> list[str]:
    if profile.mtp_draft_tokens is None:
        return []
    return ["--spec-type", "draft-mtp", "--spec-draft-n-max", str(profile.mtp_draft_tokens)]
