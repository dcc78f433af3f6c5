"""Command lines of the benchmark programs that engines come with, for a profile as it is served.

Flags as of llama.cpp 0c1e57098bba (2026-10-01) and ik_llama.cpp 8337e4cd3861 (2026-08-15).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from corral.catalog.entries import EngineKind
from corral.catalog.profile import Profile
from corral.engines import ik_llama_cpp, llama_cpp
from corral.engines.base import kv_words, optional, placement_words, thread_words
from corral.plan.host import ResolvedPlacement

# What --cpu-moe stands for (common.h, LLM_FFN_EXPS_REGEX); llama-bench has no such flag.
_EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps=CPU"
# llama-bench takes numbers only: more than any model has stands for all.
_ALL_LAYERS = "999"
# ik_llama.cpp pads its context to this.
_CONTEXT_STEP_TOKENS = 256


class BenchWords(NamedTuple):
    """A command line, and how often it is run; a program may repeat its tests itself.

    + lines: results that a whole run prints, or 1 where only the program knows
    """

    argv: tuple[str, ...]
    repeat: int = 1
    lines: int = 1


class Sizes(NamedTuple):
    """What is measured: a prompt and a generation of so many tokens, after so many others."""

    prompt_tokens: int
    generated_tokens: int
    depths_tokens: tuple[int, ...]


def sizes(profile: Profile) -> Sizes:
    """Depths are none, a quarter, half and the whole of a slot's context, less the prompt.

    They are whole micro-batches, as ik_llama.cpp counts them, so that both engines have them.
    """
    whole, step = profile.context_tokens_per_slot, profile.ubatch_tokens
    prompt, generated = min(512, whole // 2), min(128, whole // 2)
    wanted = (0, whole // 4, whole // 2, whole - max(prompt, generated))
    return Sizes(prompt, generated, tuple(sorted({depth // step * step for depth in wanted})))


def bench_words(
    profile: Profile,
    placement: ResolvedPlacement,
    *,
    kind: EngineKind,
    programs: str,
    model: str,
    repetitions: int,
) -> tuple[BenchWords, ...]:
    """All commands for a profile; ``programs``: folder of the release's, ``model``: first shard."""
    if kind == "ik_llama.cpp":
        return (BenchWords(_sweep(profile, placement, programs, model), repetitions),)
    found = _llama_bench(profile, placement, programs, model, repetitions)
    alone = [BenchWords(tuple(words)) for words in found]
    if profile.slots == 1:
        return tuple(alone)
    together = _batched(profile, placement, programs, model, repetitions)
    return (*alone, BenchWords(tuple(together), lines=repetitions))


def left_out(profile: Profile, kind: EngineKind) -> tuple[str, ...]:
    """Keys of a profile that its server has and the benchmark has not."""
    mainline = kind == "llama.cpp"
    found = {
        "mtp_draft_tokens": profile.mtp_draft_tokens is not None,
        "extra_flags": mainline and bool(profile.extra_flags),
        "rope_scaling": mainline and profile.rope_scaling is not None,
    }
    return tuple(key for key, is_out in found.items() if is_out)


def _llama_bench(
    profile: Profile, placement: ResolvedPlacement, programs: str, model: str, repetitions: int
) -> list[list[str]]:
    """Once, or once for prompts and once for generation where their threads differ."""
    size = sizes(profile)
    words = [f"{programs}/llama-bench", "--model", model, "--offline", "--progress"]
    words += ["--output", "jsonl", "--repetitions", str(repetitions)]
    words += ["--n-depth", ",".join(map(str, size.depths_tokens)), *_bench_flags(profile)]
    words += _bench_placement(profile, placement)
    prompt = ["--n-prompt", str(size.prompt_tokens)]
    generation = ["--n-gen", str(size.generated_tokens)]
    threads = optional("--threads", profile.threads)
    if profile.batch_threads in (None, profile.threads):
        return [[*words, *prompt, *generation, *threads]]
    batch_threads = ["--threads", str(profile.batch_threads)]
    return [
        [*words, *prompt, "--n-gen", "0", *batch_threads],
        [*words, "--n-prompt", "0", *generation, *threads],
    ]


def _bench_flags(profile: Profile) -> list[str]:
    words = ["--cache-type-k", profile.kv_type_k, "--cache-type-v", profile.kv_type_v]
    words += ["--flash-attn", "on" if profile.flash_attention else "off"]
    words += ["--batch-size", str(profile.batch_tokens)]
    words += ["--ubatch-size", str(profile.ubatch_tokens)]
    return [*words, "--load-mode", llama_cpp.LOAD_MODES[profile.load_mode]]


def _bench_placement(profile: Profile, placement: ResolvedPlacement) -> list[str]:
    """llama-bench separates alternatives by commas, so parts of one value by others."""
    layers = _ALL_LAYERS if placement.gpu_layers == "all" else str(placement.gpu_layers)
    words = ["--n-gpu-layers", layers]
    if placement.gpu_layers == 0:
        return words
    overrides = [*placement.tensor_overrides, *([_EXPERTS] if placement.experts_on_cpu else [])]
    words += optional("--n-cpu-moe", placement.cpu_moe_layers or None)
    words += optional("--override-tensor", ";".join(overrides) or None)
    words += optional("--split-mode", profile.split_mode)
    words += optional("--tensor-split", "/".join(f"{s:g}" for s in placement.tensor_split) or None)
    words += optional("--main-gpu", profile.main_gpu)
    return words + ([] if profile.kv_on_gpu else ["--no-kv-offload", "1"])


def _batched(
    profile: Profile, placement: ResolvedPlacement, programs: str, model: str, repetitions: int
) -> list[str]:
    """All slots at once, on short prompts; the number of sequences is given once a repetition."""
    size = sizes(profile)
    words = [f"{programs}/llama-batched-bench", "--model", model, "--offline"]
    words += [*kv_words(profile), *llama_cpp.device_words(profile, placement)]
    words += [*thread_words(profile), "--output-format", "jsonl"]
    words += ["-npp", str(size.prompt_tokens), "-ntg", str(size.generated_tokens)]
    return [*words, "-npl", ",".join([str(profile.slots)] * repetitions)]


def _sweep(
    profile: Profile, placement: ResolvedPlacement, programs: str, model: str
) -> tuple[str, ...]:
    """A micro-batch and a generation at every micro-batch of one slot's context.

    The context is cut to whole ones: the program fails at a last one that is not.
    """
    step = math.lcm(profile.ubatch_tokens, _CONTEXT_STEP_TOKENS)
    context = max(step, profile.context_tokens_per_slot // step * step)
    one = profile.model_copy(update={"slots": 1, "context_tokens_per_slot": context})
    generated = min(sizes(profile).generated_tokens, profile.ubatch_tokens)
    words = [f"{programs}/llama-sweep-bench", "--model", model, *kv_words(one)]
    words += ["--n-gpu-layers", ik_llama_cpp.layers(placement)]
    words += [*placement_words(profile, placement), *thread_words(profile)]
    words += [*ik_llama_cpp.LOAD_MODES[profile.load_mode], *ik_llama_cpp.own_words(profile)]
    words += ["--n-predict", str(generated), "--output-format", "jsonl"]
    return (*words, *profile.extra_flags)
