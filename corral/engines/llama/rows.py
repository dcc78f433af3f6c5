"""Rows of flags that both llama-servers have.

Flags as of llama.cpp 0c1e57098bba (2026-10-01) and ik_llama.cpp 8337e4cd3861 (2026-08-15). Where
one engine has more for a flag, its own folder completes the row.
"""

from __future__ import annotations

from dataclasses import replace

from corral.engines.flag_table import Flag, Settings, Value

# Parts of a command line.
CONTEXT, CACHE, BATCHES, ROPE = "context", "cache", "batches", "rope"
DEVICES, LOADING, THREADS, OWN = "devices", "loading", "threads", "own"
KV = (CONTEXT, CACHE, BATCHES, ROPE)

ADDRESS = "the instance's address and port"
KEY_FILE = "the instance's key file; a flag would show a secret"
LOCK = "the lock file, which pins every byte that is served"
PAGE = "Corral, which serves no web page"
_PLACEMENT = "the key placement and its companions"
_TEMPLATES = ("chat_template", "chat_template_file")


def _context(s: Settings) -> Value:
    """The context of all slots together."""
    return s.profile.context_tokens_per_slot * s.profile.slots


def _rope_factor(s: Settings) -> Value:
    return f"{s.profile.rope_scaling.factor:g}" if s.profile.rope_scaling else None


def _rope_context(s: Settings) -> Value:
    return (s.profile.rope_scaling and s.profile.rope_scaling.original_context_tokens) or None


def _overrides(s: Settings) -> Value:
    """One list: of a repeated flag, mainline uses only the last, by its own documentation."""
    return ",".join(s.placement.tensor_overrides) or None if s.on_gpu else None


def _split(s: Settings) -> Value:
    shares = s.placement.tensor_split if s.on_gpu else ()
    return ",".join(f"{share:g}" for share in shares) or None


ROWS = (
    Flag("--model", ("model",), lambda s: s.model, "LLAMA_ARG_MODEL", also=("-m",)),
    Flag("--alias", ("alias",), lambda s: s.alias, also=("-a",)),
    # With a name that ends in .sock llama-server listens on a unix socket and ignores the port.
    Flag(
        "--host",
        value=lambda s: s.endpoint.socket or str(s.endpoint.address),
        variable="LLAMA_ARG_HOST",
        also=("--path", "--ssl-key-file", "--ssl-cert-file"),
        owner=ADDRESS,
    ),
    Flag("--port", value=lambda s: s.endpoint.port, variable="LLAMA_ARG_PORT", owner=ADDRESS),
    Flag(
        "--api-key-file",
        value=lambda s: s.key_file,
        also=("--api-key", "-hft", "--hf-token"),
        owner=KEY_FILE,
    ),
    Flag(
        "--model-url",
        also=(
            *("-mu", "-hfr", "--hf-repo", "-hff", "--hf-file", "--mmproj-url"),
        ),
        owner=LOCK,
    ),
    Flag("--device", also=("-dev", "--rpc"), owner="the instance's gpus"),
    Flag(
        "--ctx-size",
        ("context_tokens_per_slot", "slots"),
        _context,
        "LLAMA_ARG_CTX_SIZE",
        also=("-c",),
        part=CONTEXT,
    ),
    Flag(
        "--parallel",
        ("slots",),
        lambda s: s.profile.slots,
        "LLAMA_ARG_N_PARALLEL",
        also=("-np",),
        part=CONTEXT,
    ),
    Flag(
        "--cache-type-k",
        ("kv_type_k",),
        lambda s: s.profile.kv_type_k,
        "LLAMA_ARG_CACHE_TYPE_K",
        also=("-ctk",),
        part=CACHE,
    ),
    Flag(
        "--cache-type-v",
        ("kv_type_v",),
        lambda s: s.profile.kv_type_v,
        "LLAMA_ARG_CACHE_TYPE_V",
        also=("-ctv",),
        part=CACHE,
    ),
    Flag(
        "--flash-attn",
        ("flash_attention",),
        lambda s: "on" if s.profile.flash_attention else "off",
        also=("-fa",),
        part=CACHE,
    ),
    Flag(
        "--batch-size",
        ("batch_tokens",),
        lambda s: s.profile.batch_tokens,
        "LLAMA_ARG_BATCH",
        also=("-b",),
        part=BATCHES,
    ),
    Flag(
        "--ubatch-size",
        ("ubatch_tokens",),
        lambda s: s.profile.ubatch_tokens,
        "LLAMA_ARG_UBATCH",
        also=("-ub",),
        part=BATCHES,
    ),
    Flag(
        "--rope-scaling",
        ("rope_scaling",),
        lambda s: s.profile.rope_scaling.type if s.profile.rope_scaling else None,
        also=("--rope-freq-base", "--rope-freq-scale"),
        part=ROPE,
    ),
    Flag("--rope-scale", ("rope_scaling",), _rope_factor, part=ROPE),
    Flag("--yarn-orig-ctx", ("rope_scaling",), _rope_context, part=ROPE),
    Flag(
        "--no-cont-batching",
        ("continuous_batching",),
        lambda s: not s.profile.continuous_batching,
        "LLAMA_ARG_CONT_BATCHING",
        "0",
        also=("-cb", "--cont-batching", "-nocb"),
    ),
    Flag(
        "--n-gpu-layers",
        ("gpu_layers",),
        lambda s: s.placement.gpu_layers,
        "LLAMA_ARG_N_GPU_LAYERS",
        also=("-ngl", "--gpu-layers"),
        owner=_PLACEMENT,
        part=DEVICES,
    ),
    Flag("--fit", owner=_PLACEMENT, part=DEVICES),
    Flag(
        "--cpu-moe",
        value=lambda s: s.on_gpu and s.placement.experts_on_cpu,
        also=("-cmoe",),
        owner=_PLACEMENT,
        part=DEVICES,
    ),
    Flag(
        "--n-cpu-moe",
        ("cpu_moe_layers",),
        lambda s: s.placement.cpu_moe_layers or None if s.on_gpu else None,
        also=("-ncmoe",),
        owner=_PLACEMENT,
        part=DEVICES,
    ),
    Flag(
        "--override-tensor",
        ("tensor_overrides",),
        _overrides,
        also=("-ot",),
        owner=_PLACEMENT,
        part=DEVICES,
    ),
    Flag(
        "--split-mode",
        ("split_mode",),
        lambda s: s.profile.split_mode if s.on_gpu else None,
        also=("-sm",),
        part=DEVICES,
    ),
    Flag("--tensor-split", ("tensor_split",), _split, also=("-ts",), part=DEVICES),
    Flag(
        "--main-gpu",
        ("main_gpu",),
        lambda s: s.profile.main_gpu if s.on_gpu else None,
        also=("-mg",),
        part=DEVICES,
    ),
    Flag(
        "--no-kv-offload",
        ("kv_on_gpu",),
        lambda s: s.on_gpu and not s.profile.kv_on_gpu,
        also=("-kvo", "--kv-offload", "-nkvo"),
        part=DEVICES,
    ),
    Flag(
        "--threads",
        ("threads",),
        lambda s: s.profile.threads,
        "LLAMA_ARG_THREADS",
        also=("-t",),
        part=THREADS,
    ),
    Flag(
        "--threads-batch",
        ("batch_threads",),
        lambda s: s.profile.batch_threads,
        also=("-tb",),
        part=THREADS,
    ),
    Flag("--numa", ("numa",), lambda s: s.profile.numa, part=THREADS),
    Flag(
        "--cache-ram",
        ("prompt_cache_mib",),
        lambda s: s.profile.prompt_cache_mib,
        also=("-cram",),
    ),
    # With a built-in template Jinja is off: it would read the template's name as its text.
    Flag("--no-jinja", _TEMPLATES),
    Flag("--jinja", _TEMPLATES, lambda s: not s.profile.chat_template),
    Flag(
        "--chat-template",
        _TEMPLATES,
        lambda s: s.profile.chat_template,
        "LLAMA_ARG_CHAT_TEMPLATE",
    ),
    Flag(
        "--chat-template-file",
        _TEMPLATES,
        lambda s: None if s.profile.chat_template else s.chat_template_file,
    ),
    Flag("--reasoning-format", ("reasoning_format",), lambda s: s.profile.reasoning_format),
    Flag("--reasoning-budget", ("reasoning_budget",), lambda s: s.profile.reasoning_budget),
    Flag("--temp", ("sampling.temperature",), lambda s: s.profile.sampling.temperature),
    Flag("--top-p", ("sampling.top_p",), lambda s: s.profile.sampling.top_p),
    Flag("--min-p", ("sampling.min_p",), lambda s: s.profile.sampling.min_p),
    Flag("--top-k", ("sampling.top_k",), lambda s: s.profile.sampling.top_k),
    Flag(
        "--repeat-penalty",
        ("sampling.repeat_penalty",),
        lambda s: s.profile.sampling.repeat_penalty,
    ),
    Flag(
        "--metrics", ("metrics",), lambda s: s.profile.metrics, "LLAMA_ARG_ENDPOINT_METRICS", "1"
    ),
    Flag("--webui", owner=PAGE),
)  # fmt: skip
"""In the order of the command lines."""

# Of these the first that matches a tensor wins; variables are read in the server's own order.
ORDERED = frozenset({"--cpu-moe", "--n-cpu-moe", "--override-tensor"})


def completed(*own: Flag, after: dict[str, tuple[Flag, ...]]) -> tuple[Flag, ...]:
    """The rows of one engine: ``own`` replace common rows of the same name.

    + after: name of a row -> rows of this engine alone to insert after it
    """
    by_name = {row.name: row for row in own}
    found: list[Flag] = []
    for row in ROWS:
        found += [by_name.pop(row.name, row), *after.get(row.name, ())]
    if by_name:
        raise ValueError(f"no common row is named {', '.join(by_name)}")
    return tuple(found)


def row(name: str, **changes: object) -> Flag:
    """The common row of a flag, with some columns replaced for one engine."""
    common = next(one for one in ROWS if one.name == name)
    return replace(common, **changes)  # type: ignore[arg-type]
