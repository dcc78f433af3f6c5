"""Mainline llama.cpp: how a profile becomes flags of llama-server.

Flags as of commit 0c1e57098bba (2026-10-01).
"""

from __future__ import annotations

from corral.catalog import Engine, Profile, Sampling
from corral.plan import Endpoint

PROGRAM = "llama-server"

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


def keyed_routes(profile: Profile) -> tuple[str, ...]:
    """Routes, as ``METHOD path``, that must refuse a request without a key."""
    return (*_KEYED_ROUTES, "GET /metrics") if profile.metrics else _KEYED_ROUTES


def cmake_options(engine: Engine, *, backend: str, cuda_architectures: str | None) -> list[str]:
    """``-D`` options of a build, sorted, so that equal builds have equal keys."""
    options = dict(engine.cmake_options)
    if backend == "cuda":
        options |= engine.cmake_options_cuda
        options["CMAKE_CUDA_ARCHITECTURES"] = cuda_architectures or "native"
    return [f"-D{name}={value}" for name, value in sorted(options.items())]


def argv(
    profile: Profile,
    *,
    program: str,
    model: str,
    alias: str,
    endpoint: Endpoint,
    key_file: str,
    on_gpu: bool,
) -> tuple[str, ...]:
    """The command line; ``model`` is the first shard. ``--ctx-size`` counts all slots together."""
    words = [program, "--model", model, "--alias", alias]
    words += _listen(endpoint)
    words += ["--api-key-file", key_file]
    words += ["--ctx-size", str(profile.context_tokens_per_slot * profile.slots)]
    words += ["--parallel", str(profile.slots)]
    words += ["--cache-type-k", profile.kv_type_k, "--cache-type-v", profile.kv_type_v]
    words += ["--flash-attn", "on" if profile.flash_attention else "off"]
    words += [
        "--batch-size",
        str(profile.batch_tokens),
        "--ubatch-size",
        str(profile.ubatch_tokens),
    ]
    words += ["--n-gpu-layers", str(profile.gpu_layers) if on_gpu else "0", "--fit", "off"]
    words += ["--threads", str(profile.threads)] if profile.threads else []
    words += ["--cache-ram", str(profile.prompt_cache_mib)]
    words += ["--jinja", "--reasoning-format", profile.reasoning_format]
    words += _sampling(profile.sampling)
    words += ["--metrics"] if profile.metrics else []
    words += ["--no-ui", "--offline"]
    return tuple(words)


def _listen(endpoint: Endpoint) -> list[str]:
    """A name that ends in .sock makes llama-server listen on a unix socket; port is then unused."""
    if endpoint.socket:
        return ["--host", endpoint.socket]
    return ["--host", str(endpoint.address), "--port", str(endpoint.port)]


def _sampling(sampling: Sampling) -> list[str]:
    flags = {
        "--temp": sampling.temperature,
        "--top-p": sampling.top_p,
        "--min-p": sampling.min_p,
        "--top-k": sampling.top_k,
        "--repeat-penalty": sampling.repeat_penalty,
    }
    return [
        word for flag, value in flags.items() if value is not None for word in (flag, str(value))
    ]
