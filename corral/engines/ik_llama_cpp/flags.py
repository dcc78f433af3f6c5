"""Flags of ik_llama.cpp's llama-server, as of commit 8337e4cd3861 (2026-08-15), common/common.cpp.

Variables are those of gpt_params_parse_from_env: fewer than mainline's, and switches accept only
``1`` and ``true``.
"""

from __future__ import annotations

from corral.catalog.profile import LoadMode
from corral.engines.flag_table import Flag, FlagTable, Settings, Value
from corral.engines.llama.opening_flags import REASONS
from corral.engines.llama.rows import LOADING, ORDERED, OWN, completed, row

# Load mode -> the flags that select it.
LOAD_MODES: dict[LoadMode, tuple[str, ...]] = {
    "mmap": (),
    "mmap+mlock": ("--mlock",),
    "mlock": ("--mlock", "--no-mmap"),
    "none": ("--no-mmap",),
}


def _layers(s: Settings) -> Value:
    """A number: "all" is more layers than any model has."""
    return "999" if s.placement.gpu_layers == "all" else s.placement.gpu_layers


_OWN = (
    row("--alias", variable="LLAMA_ARG_MODEL_ALIAS"),
    # Without LLAMA_ARG_FLASH_ATTN: the server would read the flag's "on" there as off.
    row("--flash-attn", also=("-fa", "-no-fa", "--no-flash-attn")),
    row("--n-gpu-layers", value=_layers),
    Flag("--fit", also=("--fit-margin", "--dry-run", "-dr"),
         owner="Corral, which proves the fit itself"),
    row("--webui", value=lambda _: "none"),
)  # fmt: skip

_AFTER = {
    "--threads-batch": (
        Flag("--mlock", ("load_mode",), lambda s: "--mlock" in LOAD_MODES[s.profile.load_mode],
             "LLAMA_ARG_MLOCK", "1", part=LOADING),
        Flag("--no-mmap", ("load_mode",), lambda s: "--no-mmap" in LOAD_MODES[s.profile.load_mode],
             part=LOADING),
    ),
    "--cache-ram": (
        Flag("--run-time-repack", ("runtime_repack",), lambda s: s.profile.runtime_repack,
             also=("-rtr",), part=OWN),
        Flag("--attention-max-batch", ("attention_max_batch_mib",),
             lambda s: s.profile.attention_max_batch_mib, also=("-amb",), part=OWN),
        Flag("--mla-use", ("mla_mode",), lambda s: s.profile.mla_mode, also=("-mla",), part=OWN),
        Flag("--graph-reuse", ("graph_reuse",), lambda s: s.profile.graph_reuse,
             also=("-gr",), part=OWN),
        Flag("--no-graph-reuse", ("graph_reuse",), lambda s: s.profile.graph_reuse is False,
             also=("-no-gr",), part=OWN),
        Flag("--split-mode-graph-scheduling", ("split_mode_graph_scheduling",),
             lambda s: s.profile.split_mode_graph_scheduling, also=("-smgs",), part=OWN),
        # On by default; there is no flag to switch it on any more.
        Flag("--no-fused-moe", ("fused_moe",), lambda s: s.profile.fused_moe is False,
             also=("-no-fmoe",), part=OWN),
    ),
    "--reasoning-budget": (
        Flag("--multi-token-prediction", ("mtp_draft_tokens",),
             lambda s: s.profile.mtp_draft_tokens is not None,
             also=("-mtp", "-no-mtp", "--no-multi-token-prediction")),
        # A stage of --spec-type may name another model and file.
        Flag("--draft-max", ("mtp_draft_tokens",), lambda s: s.profile.mtp_draft_tokens,
             also=("--draft", "--draft-n", "--spec-type")),
    ),
}  # fmt: skip

FLAGS = FlagTable(completed(*_OWN, after=_AFTER), refused=REASONS, ordered=ORDERED)
