"""KV cache types that ik_llama.cpp's attention supports, on GPUs and on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

from corral.catalog.profile import KvType, Profile
from corral.engines.flag_table import Problem

# ggml-cuda/fattn-vec-f16.cu. A pair without a kernel crashes the server during a request.
BUILT_PAIRS: frozenset[tuple[KvType, KvType]] = frozenset(
    {
        ("f16", "f16"),
        ("q8_0", "q8_0"),
        ("q8_0", "q6_0"),
        ("q8_0", "iq4_nl"),
        ("q6_0", "q5_0"),
        ("q4_0", "q4_0"),
        ("iq4_nl", "iq4_nl"),
    }
)
_FREELY_PAIRED: tuple[KvType, ...] = ("f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
_ALL_PAIRS: frozenset[tuple[KvType, KvType]] = BUILT_PAIRS | {
    ("q6_0", "q6_0"),
    *((k, v) for k in _FREELY_PAIRED for v in _FREELY_PAIRED),
}
# ggml/src/iqk/iqk_flash_attn.cpp, supported_kv_types; another pair crashes the server, too. bf16
# needs AVX512BF16, which portable builds lack. q8_KV is listed for V, but fails an assertion there.
_CPU_K_TYPES: frozenset[KvType] = frozenset(
    {"f16", "q8_0", "q8_KV", "q6_0", "q4_1", "q4_0", "iq4_nl"}
)
_CPU_V_TYPES = _CPU_K_TYPES - {"q8_KV"}


def kv_problems(profile: Profile, gpus: int) -> Iterator[Problem]:
    """KV cache types that would crash the server during a request; ``gpus``: 0 for none."""
    k, v = profile.kv_type_k, profile.kv_type_v
    on_gpu = gpus > 0 and profile.kv_on_gpu
    on_cpu = not on_gpu or profile.gpu_layers != "all"
    if profile.flash_attention:
        pair = f'kv_type_k = "{k}" with kv_type_v = "{v}" has no flash attention kernel'
        choose = 'choose another pair, such as "q8_0" for both'
        if on_gpu and (k, v) not in _ALL_PAIRS:
            yield Problem(f"{pair} in CUDA", choose)
        if on_cpu and not (k in _CPU_K_TYPES and v in _CPU_V_TYPES):
            yield Problem(f"{pair} for layers on the CPU", choose)
    elif v == "f32":
        yield Problem('kv_type_v = "f32" is not known to ik_llama.cpp', 'set kv_type_v = "f16"')
