"""The engine llama.cpp, mainline: what its server supports, and how it is built.

As of commit 0c1e57098bba (2026-10-01).
"""

from __future__ import annotations

from collections.abc import Iterator, Set

from corral.catalog.entries import EngineKind
from corral.catalog.profile import KvType, Profile
from corral.engines.base import KvPair, MemoryRules
from corral.engines.flag_table import Problem, Settings
from corral.engines.llama.rows import DEVICES, KV, LOADING
from corral.engines.llama.server import (
    LlamaServer,
    gpu_problems,
    split_mode_problems,
)
from corral.engines.llama_cpp import benchmark
from corral.engines.llama_cpp.chat_templates import BUILT_IN
from corral.engines.llama_cpp.flags import FLAGS
from corral.plan.placement import ResolvedPlacement

# common/arg.cpp, kv_cache_types.
_KV_TYPES: frozenset[KvType] = frozenset(
    {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"}
)
# ggml-cuda/fattn.cu, ggml_cuda_fattn_kv_type_supported; f32 is converted to f16.
_CUDA_KV_TYPES = _KV_TYPES - {"iq4_nl"}
# ggml/CMakeLists.txt, the default of GGML_CUDA_FA_QUANTS.
_BUILT_PAIRS = frozenset({"f16-f16", "q4_0-q4_0", "q8_0-q8_0", "bf16-bf16"})
_SPLIT_MODES = ("none", "layer", "row", "tensor")
# With these, split mode tensor fails an assertion at the start: their caches are not divided by it.
_UNSPLIT_KV_TYPES: frozenset[KvType] = frozenset({"q4_1", "q5_0", "q5_1"})
# src/llama-arch.cpp, llm_arch_supports_sm_tensor: loading a model of these ends the server.
_UNSPLIT_NAMES = """
    bailingmoe3 bitnet deepseek2 deepseek32 dots3note falcon-h1 gemma3n glm-dsa glm5-next
    granitehybrid grok hy_v4 jamba kimi-k3 kimi-linear mamba mamba2 minicpm3 minimax-01 minimax-m2
    minimax-m3 mistral4 mpt nemotron_h nemotron_h_moe olmo2 olmoe plamo2 qwen3tts qwen4exp t5
"""
_UNSPLIT = tuple(_UNSPLIT_NAMES.split())
_CHOOSE_IK = 'choose engine = "ik_llama.cpp"'


class LlamaCpp(LlamaServer):
    """llama.cpp."""

    kind: EngineKind = "llama.cpp"
    flags = FLAGS
    bench_arguments = staticmethod(benchmark.bench_arguments)
    bench_samples = staticmethod(benchmark.bench_samples)
    left_out = staticmethod(benchmark.left_out)
    # llama_context's constructor. The first GPU computes all tensors in host memory.
    memory = MemoryRules(
        pipelines=True,
        one_latent_cache=True,
        unsplit_architectures={"tensor": _UNSPLIT},
        # glm5-next.cpp, build_arch_graph: it throws for the graph of the MTP block.
        no_mtp_architectures=("glm5-next",),
        draft_kv_type="f16",
    )
    # Without a key only /health, /v1/health and the web page answer; the page is switched off.
    more_keyed_routes = ("GET /v1/models",)
    shared_modes = ("layer", "tensor")

    def problems(self, profile: Profile, *, gpus: int) -> list[Problem]:
        """Everything in a profile that the engine cannot do; ``gpus``: 0 for none."""
        return [
            *_kv_types(profile, gpus),
            *split_mode_problems(profile, _SPLIT_MODES, "ik_llama.cpp", _CHOOSE_IK),
            *_values(profile, gpus),
            *gpu_problems(profile, gpus),
            *FLAGS.extra_flag_problems(profile.extra_flags),
        ]

    def kernel_options(self, kv_pairs: Set[KvPair]) -> dict[str, str]:
        """Build a kernel for each pair: a pair without one is converted, which is slow."""
        pairs = {"-".join("f16" if t == "f32" else t for t in pair) for pair in kv_pairs}
        if pairs <= _BUILT_PAIRS:
            return {}
        return {"GGML_CUDA_FA_QUANTS": ";".join(sorted(_BUILT_PAIRS | pairs))}

    def fit_argv(
        self, profile: Profile, *, programs: str, model: str, placement: ResolvedPlacement
    ) -> tuple[str, ...] | None:
        """The engine's own count of the memory for the same flags; rows in MiB."""
        argv = [f"{programs}/llama-fit-params", "--fit-print", "on", "--model", model]
        settings = Settings(profile=profile, placement=placement)
        return (*argv, *FLAGS.arguments(settings, *KV, DEVICES, LOADING))


def _kv_types(profile: Profile, gpus: int) -> Iterator[Problem]:
    on_gpu = gpus > 0 and profile.kv_on_gpu and profile.flash_attention
    known = _CUDA_KV_TYPES if on_gpu else _KV_TYPES
    for key in ("kv_type_k", "kv_type_v"):
        kv_type = getattr(profile, key)
        if kv_type not in known:
            what = f'{key} = "{kv_type}" is not known to llama.cpp{" in CUDA" if on_gpu else ""}'
            yield Problem(what, f"choose {key} from {', '.join(sorted(known))}")


def _values(profile: Profile, gpus: int) -> Iterator[Problem]:
    if profile.split_mode == "row" and gpus:
        what = 'split_mode = "row": llama.cpp no longer has split buffers in CUDA'
        yield Problem(what, 'set split_mode = "layer" or "tensor"')
    if profile.split_mode == "tensor" and not profile.flash_attention:
        yield Problem('split_mode = "tensor" needs flash attention', "set flash_attention = true")
    types = sorted({profile.kv_type_k, profile.kv_type_v} & _UNSPLIT_KV_TYPES)
    if profile.split_mode == "tensor" and types and gpus > 1:
        what = f'split_mode = "tensor" cannot divide a KV cache of {" and ".join(types)}'
        yield Problem(what, 'choose "q8_0", "q4_0" or "f16", or set split_mode = "layer"')
    if profile.chat_template and profile.chat_template not in BUILT_IN:
        what = f'chat_template = "{profile.chat_template}" is not built into llama.cpp'
        yield Problem(what, f"choose from {', '.join(sorted(BUILT_IN))}")


ENGINE = LlamaCpp()
