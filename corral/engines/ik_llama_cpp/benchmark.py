"""ik_llama.cpp's benchmark program, llama-sweep-bench.

Flags as of commit 8337e4cd3861 (2026-08-15).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from corral.catalog.profile import Profile
from corral.engines.benchmark import AS_SUGGESTED, BenchArguments, Lengths, Sample, sizes
from corral.engines.flag_table import Settings
from corral.engines.ik_llama_cpp.flags import FLAGS
from corral.engines.llama.rows import DEVICES, KV, LOADING, OWN, THREADS
from corral.engines.llama.server import sampled
from corral.errors import CorralError
from corral.plan.placement import ResolvedPlacement

# The program pads its context to a multiple of this.
_CONTEXT_STEP_TOKENS = 256
_PROGRAM = "llama-sweep-bench"


def bench_arguments(
    profile: Profile,
    placement: ResolvedPlacement,
    *,
    programs: str,
    model: str,
    repetitions: int,
    lengths: Lengths = AS_SUGGESTED,
) -> tuple[BenchArguments, ...]:
    """Measure a prompt and a generation at every micro-batch of one slot's context.

    The context is cut to whole micro-batches: the program fails at an incomplete last one.
    """
    step = math.lcm(profile.ubatch_tokens, _CONTEXT_STEP_TOKENS)
    context = max(step, profile.context_tokens_per_slot // step * step)
    one = profile.model_copy(update={"slots": 1, "context_tokens_per_slot": context})
    generated = min(sizes(profile, lengths).generated_tokens, profile.ubatch_tokens)
    _refuse_other(profile, lengths)
    settings = Settings(profile=one, placement=placement)
    argv = [f"{programs}/{_PROGRAM}", "--model", model]
    argv += FLAGS.arguments(settings, *KV, DEVICES, THREADS, LOADING, OWN)
    argv += ["--n-predict", str(generated), "--output-format", "jsonl"]
    return (BenchArguments((*argv, *profile.extra_flags), repetitions),)


def _refuse_other(profile: Profile, lengths: Lengths) -> None:
    """Each step adds one micro-batch to the context, and generates at most as much after it."""
    step = profile.ubatch_tokens
    if lengths.prompt_tokens not in (None, step):
        where = f"--prompt-tokens {lengths.prompt_tokens}"
        what = f"{_PROGRAM} measures prompts of one micro-batch, {step} tokens"
        raise CorralError(where, what, "leave it out, or change ubatch_tokens of the profile")
    if lengths.generated_tokens and lengths.generated_tokens > step:
        where = f"--generated-tokens {lengths.generated_tokens}"
        what = f"{_PROGRAM} generates at most one micro-batch, {step} tokens"
        raise CorralError(where, what, f"choose at most {step}")


def left_out(profile: Profile) -> tuple[str, ...]:
    """Keys of a profile that the server supports and the benchmark does not."""
    return ("mtp_draft_tokens",) if profile.mtp_draft_tokens is not None else ()


def bench_samples(program: str, row: dict[str, Any]) -> Iterator[Sample]:
    """Samples in a line of the program. Raises KeyError for another program."""
    if program != _PROGRAM:
        raise KeyError(program)
    return sampled(row, "n_kv", 1, "n_kv")
