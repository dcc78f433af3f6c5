"""Command line of llama-perplexity, for the weights and the cache of a profile.

Flags as of llama.cpp 0c1e57098bba (2026-10-01) and ik_llama.cpp 8337e4cd3861 (2026-08-15).
"""

from __future__ import annotations

from corral.catalog.entries import EngineKind
from corral.catalog.profile import Profile
from corral.engines import ik_llama_cpp, llama_cpp
from corral.engines.base import placement_words, rope_words, thread_words
from corral.plan.host import ResolvedPlacement

# What published figures are made with. The text must have twice as many tokens.
_CONTEXT_TOKENS = 512


def perplexity_words(
    profile: Profile,
    placement: ResolvedPlacement,
    *,
    kind: EngineKind,
    program: str,
    model: str,
    text: str,
) -> tuple[str, ...]:
    """One sequence at a time; ``model``: first shard, ``text``: path of the text."""
    # A larger batch would hold several sequences, and their caches.
    batch = str(_CONTEXT_TOKENS)
    words = [program, "--model", model, "--file", text, "--ctx-size", batch]
    words += ["--batch-size", batch, "--ubatch-size", batch]
    words += ["--cache-type-k", profile.kv_type_k, "--cache-type-v", profile.kv_type_v]
    words += ["--flash-attn", "on" if profile.flash_attention else "off"]
    words += [*rope_words(profile.rope_scaling), *thread_words(profile)]
    if kind == "llama.cpp":
        return (*words, *llama_cpp.device_words(profile, placement))
    words += ["--n-gpu-layers", ik_llama_cpp.layers(placement)]
    words += placement_words(profile, placement)
    words += ik_llama_cpp.LOAD_MODES[profile.load_mode]
    return (*words, *ik_llama_cpp.own_words(profile))
