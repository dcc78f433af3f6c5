"""ik_llama.cpp's benchmark program, llama-sweep-bench.

Flags as of commit 8337e4cd3861 (2026-08-15).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from corral.catalog.profile import Profile
from corral.engines.benchmark import BenchArguments, Sample, sizes
from corral.engines.flag_table import Settings
from corral.engines.ik_llama_cpp.flags import FLAGS
from corral.engines.llama.rows import DEVICES, KV, LOADING, OWN, THREADS
from corral.engines.llama.server import sampled
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
) -> tuple[BenchArguments, ...]:
    """Measure a prompt and a generation at every micro-batch of one slot's context.

    The context is cut to whole micro-batches: the program fails at an incomplete last one.
    """
    step = math.lcm(profile.ubatch_tokens, _CONTEXT_STEP_TOKENS)
    context = max(step, profile.context_tokens_per_slot // step * step)
    one = profile.model_copy(update={"slots": 1, "context_tokens_per_slot": context})
    generated = min(sizes(profile).generated_tokens, profile.ubatch_tokens)
    settings = Settings(profile=one, placement=placement)
    argv = [f"{programs}/{_PROGRAM}", "--model", model]
    argv += FLAGS.arguments(settings, *KV, DEVICES, THREADS, LOADING, OWN)
    argv += ["--n-predict", str(generated), "--output-format", "jsonl"]
    return (BenchArguments((*argv, *profile.extra_flags), repetitions),)


def left_out(profile: Profile) -> tuple[str, ...]:
    """Keys of a profile that the server supports and the benchmark does not."""
    return ("mtp_draft_tokens",) if profile.mtp_draft_tokens is not None else ()


def bench_samples(program: str, row: dict[str, Any]) -> Iterator[Sample]:
    """Samples in a line of the program. Raises KeyError for another program."""
    if program != _PROGRAM:
        raise KeyError(program)
    return sampled(row, "n_kv", 1, "n_kv")
