"""Flags of mainline's llama-server, as of commit 0c1e57098bba (2026-10-01).

Variables are those of `llama-server --help`.
"""

from __future__ import annotations

from corral.catalog.profile import LoadMode
from corral.engines.flag_table import Flag, FlagTable, Settings, Value
from corral.engines.llama.opening_flags import REASONS
from corral.engines.llama.rows import DEVICES, LOADING, LOCK, ORDERED, PAGE, completed, row

LOAD_MODES: dict[LoadMode, str] = {
    "mmap": "mmap",
    "mmap+mlock": "mmap+mlock",
    "mlock": "mlock",
    "none": "none",
    "direct": "dio",
}
_FIT = "Corral, which proves the fit itself"
_SOCKET = "the instance's socket"


def _devices(s: Settings) -> Value:
    """CUDA's own numbers, of the GPUs that the unit names in CUDA_VISIBLE_DEVICES.

    Without the flag a server that finds no GPU serves from host memory, with a warning alone.
    """
    return ",".join(f"CUDA{n}" for n in range(s.gpus)) or None if s.on_gpu else None


def _drafting(s: Settings) -> Value:
    if s.draft:
        return "draft-simple"
    return "draft-mtp" if s.profile.mtp_draft_tokens is not None else None


def _drafted(s: Settings) -> Value:
    return s.profile.draft_tokens if s.draft else s.profile.mtp_draft_tokens


_OWN = (
    row("--alias", variable="LLAMA_ARG_ALIAS"),
    row("--api-key-file", variable="LLAMA_ARG_API_KEY_FILE"),
    row(
        "--model-url",
        also=(
            *("-mu", "-hfr", "--hf-repo", "-hff", "--hf-file", "--mmproj-url"),
            *("-dr", "--docker-repo", "-hf", "-mmu"),
            *("-hfd", "-hfrd", "--hf-repo-draft", "--spec-draft-hf"),
        ),
    ),
    row("--device", value=_devices, variable="LLAMA_ARG_DEVICE"),
    row("--flash-attn", variable="LLAMA_ARG_FLASH_ATTN"),
    row("--rope-scaling", variable="LLAMA_ARG_ROPE_SCALING_TYPE"),
    row("--rope-scale", variable="LLAMA_ARG_ROPE_SCALE"),
    row("--yarn-orig-ctx", variable="LLAMA_ARG_YARN_ORIG_CTX"),
    Flag("--fit", value=lambda _: "off", variable="LLAMA_ARG_FIT", owner=_FIT, part=DEVICES,
         also=("-fit", "-fitt", "--fit-target", "-fitc", "--fit-ctx")),
    row("--cpu-moe", variable="LLAMA_ARG_CPU_MOE", variable_value="1"),
    row("--n-cpu-moe", variable="LLAMA_ARG_N_CPU_MOE"),
    row("--override-tensor", variable="LLAMA_ARG_OVERRIDE_TENSOR"),
    row("--split-mode", variable="LLAMA_ARG_SPLIT_MODE"),
    row("--tensor-split", variable="LLAMA_ARG_TENSOR_SPLIT"),
    row("--main-gpu", variable="LLAMA_ARG_MAIN_GPU"),
    row("--no-kv-offload", variable="LLAMA_ARG_KV_OFFLOAD", variable_value="0"),
    row("--numa", variable="LLAMA_ARG_NUMA"),
    row("--cache-ram", variable="LLAMA_ARG_CACHE_RAM"),
    row("--no-jinja", value=lambda s: bool(s.profile.chat_template),
        variable="LLAMA_ARG_JINJA", variable_value="0"),
    row("--jinja", variable="LLAMA_ARG_JINJA", variable_value="1"),
    row("--chat-template-file", variable="LLAMA_ARG_CHAT_TEMPLATE_FILE"),
    row("--reasoning-format", variable="LLAMA_ARG_THINK"),
    row("--reasoning-budget", variable="LLAMA_ARG_THINK_BUDGET"),
    row("--temp", variable="LLAMA_ARG_TEMPERATURE", also=("--temperature",)),
    row("--top-p", variable="LLAMA_ARG_TOP_P"),
    row("--min-p", variable="LLAMA_ARG_MIN_P"),
    row("--top-k", variable="LLAMA_ARG_TOP_K"),
    row("--repeat-penalty", variable="LLAMA_ARG_REPEAT_PENALTY"),
)  # fmt: skip

_AFTER = {
    "--port": (Flag("--reuse-port", also=("--api-prefix",), owner=_SOCKET),),
    "--no-kv-offload": (
        Flag("--load-mode", ("load_mode",), lambda s: LOAD_MODES[s.profile.load_mode],
             "LLAMA_ARG_LOAD_MODE", also=("-lm",), part=LOADING),
    ),
    "--reasoning-budget": (
        Flag("--spec-type", ("mtp_draft_tokens", "draft_model"), _drafting, "LLAMA_ARG_SPEC_TYPE"),
        Flag("--spec-draft-n-max", ("mtp_draft_tokens", "draft_tokens"), _drafted,
             "LLAMA_ARG_SPEC_DRAFT_N_MAX"),
        Flag("--spec-draft-model", ("draft_model",), lambda s: s.draft or None,
             also=("-md", "--model-draft")),
        # On one GPU, so that its memory can be counted.
        Flag("--spec-draft-device", value=lambda s: "CUDA0" if s.draft and s.gpus else None,
             also=("-devd", "--device-draft"), owner="the instance's gpus"),
        Flag("--spec-draft-ngl", value=lambda s: "all" if s.draft and s.gpus else None,
             also=("-ngld", "--gpu-layers-draft", "--n-gpu-layers-draft"),
             owner="the instance's gpus"),
        Flag("--lora", ("lora",), lambda s: ",".join(s.lora) or None),
    ),
    "--metrics": (
        Flag("--mmproj", ("vision",), lambda s: s.projector or None, also=("-mm", "--no-mmproj")),
        Flag("--image-max-tokens", ("image_tokens",),
             lambda s: s.profile.image_tokens if s.projector else None,
             "LLAMA_ARG_IMAGE_MAX_TOKENS"),
    ),
    "--webui": (
        Flag("--no-ui", value=lambda _: True, variable="LLAMA_ARG_UI", variable_value="0",
             also=("--ui", "--no-webui"), owner=PAGE),
        Flag("--offline", value=lambda _: True, variable="LLAMA_ARG_OFFLINE", variable_value="1",
             owner=LOCK),
    ),
}  # fmt: skip

FLAGS = FlagTable(completed(*_OWN, after=_AFTER), refused=REASONS, ordered=ORDERED)
