"""The engine ik_llama.cpp: what its server supports, and how it is built.

As of commit 8337e4cd3861 (2026-08-15), common/common.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import replace

from corral.catalog.entries import EngineKind
from corral.catalog.profile import Profile
from corral.engines.base import KvPair, MemoryRules
from corral.engines.flag_table import Problem
from corral.engines.ik_llama_cpp import benchmark
from corral.engines.ik_llama_cpp.chat_templates import BUILT_IN
from corral.engines.ik_llama_cpp.flags import FLAGS, LOAD_MODES
from corral.engines.ik_llama_cpp.kv_types import BUILT_PAIRS, kv_problems
from corral.engines.llama.routes import ROUTES
from corral.engines.llama.server import (
    LlamaServer,
    gpu_problems,
    split_mode_problems,
)

_MIB = 1024**2
# Measured on H200s: 664 to 666 MiB with the CUDA context (tests/data/held-h200.csv).
RUNTIME_BYTES = 100 * _MIB
_SPLIT_MODES = ("none", "layer", "graph", "attn")
# Modes that, of the architectures that Corral knows, only these support: for others the server
# falls back to layer (llama.cpp, is_model_split_supported).
_GRAPH_MODES, _GRAPH_ARCHITECTURES = ("graph", "attn"), ("glm4moe",)
# LLM_ARCH_NAMES of llama-arch.cpp: it has glm-dsa, and nothing of GLM-5.3.
_UNKNOWN_ARCHITECTURES = ("glm5-next",)
# Others get no context for drafts (llama.cpp, llama_init_from_model).
_MTP_ARCHITECTURES = ("glm4moe",)
_CHOOSE_MAINLINE = 'choose engine = "llama.cpp"'


class IkLlamaCpp(LlamaServer):
    """ik_llama.cpp."""

    kind: EngineKind = "ik_llama.cpp"
    flags = FLAGS
    # A pool of threads, one for each connection: at least two more than slots (server.cpp).
    routes = replace(ROUTES, spare_connections=2)
    bench_arguments = staticmethod(benchmark.bench_arguments)
    bench_samples = staticmethod(benchmark.bench_samples)
    left_out = staticmethod(benchmark.left_out)
    # It keeps one copy of inputs, and allocates the logits of a whole batch. For sources of the
    # others see corral.fit.latent and corral.fit.layer_split.
    memory = MemoryRules(
        runtime_bytes=RUNTIME_BYTES,
        fuses_experts=True,
        copies_in_pools=True,
        logits_of_whole_batch=True,
        output_layer_last=True,
        splits_by_size=True,
        divides_layer_counts=True,
        overrides_first=True,
        shared_cache=True,
        latent_by_mode=True,
        unknown_architectures=_UNKNOWN_ARCHITECTURES,
        mtp_architectures=_MTP_ARCHITECTURES,
        draft_context_per_slot=True,
        split_architectures=dict.fromkeys(_GRAPH_MODES, _GRAPH_ARCHITECTURES),
    )
    # Public even with a key: /models, /v1/models, /api/tags and / (server.cpp).
    variables_win = True
    shared_modes = ("layer", "graph", "attn")

    def problems(self, profile: Profile, *, gpus: int) -> list[Problem]:
        """Everything in a profile that the engine cannot do; ``gpus``: 0 for none."""
        return [
            *_foreign_values(profile),
            *kv_problems(profile, gpus),
            *_companions(profile, gpus),
            *gpu_problems(profile, gpus),
            *FLAGS.extra_flag_problems(profile.extra_flags),
        ]

    def kernel_options(self, kv_pairs: Set[KvPair]) -> dict[str, str]:
        """Types beyond the default need all kernels."""
        return {"GGML_CUDA_FA_ALL_QUANTS": "ON"} if kv_pairs - BUILT_PAIRS else {}


def _foreign_values(profile: Profile) -> Iterator[Problem]:
    if profile.listen == "unix":
        what = 'listen = "unix": ik_llama.cpp has no unix sockets'
        yield Problem(what, f'set listen = "tcp", or {_CHOOSE_MAINLINE}')
    yield from split_mode_problems(profile, _SPLIT_MODES, "llama.cpp", _CHOOSE_MAINLINE)
    if profile.load_mode not in LOAD_MODES:
        what = f'load_mode = "{profile.load_mode}" is supported by llama.cpp only'
        yield Problem(what, f"choose load_mode from {', '.join(LOAD_MODES)}, {_CHOOSE_MAINLINE}")
    if profile.reasoning_budget is not None and profile.reasoning_budget > 0:
        what = "reasoning_budget: ik_llama.cpp supports only 0 and -1"
        yield Problem(what, f"set reasoning_budget to 0 or -1, or {_CHOOSE_MAINLINE}")
    if profile.chat_template and profile.chat_template not in BUILT_IN:
        what = f'chat_template = "{profile.chat_template}" is not built into ik_llama.cpp'
        yield Problem(what, f"choose from {', '.join(sorted(BUILT_IN))}")


def _companions(profile: Profile, gpus: int) -> Iterator[Problem]:
    """Combinations of keys without effect, or that stop the server."""
    if profile.runtime_repack and "mmap" in profile.load_mode:
        what = f'runtime_repack does not work with load_mode = "{profile.load_mode}"'
        yield Problem(what, 'set load_mode = "none" or "mlock"')
    if profile.split_mode_graph_scheduling and profile.split_mode != "graph":
        what = 'split_mode_graph_scheduling needs split_mode = "graph"'
        yield Problem(what, 'set split_mode = "graph", or remove split_mode_graph_scheduling')
    if gpus == 1 and profile.split_mode in _GRAPH_MODES:
        what = f'split_mode = "{profile.split_mode}" needs two GPUs or more, the instance has 1'
        yield Problem(what, "give the instance more GPUs, or remove split_mode")


ENGINE = IkLlamaCpp()
