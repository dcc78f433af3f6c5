"""Benchmark cases of all engines, and arguments and results of benchmark programs."""

from __future__ import annotations

from typing import Literal, NamedTuple

from corral.catalog.profile import Profile
from corral.errors import CorralError

Test = Literal["prompt", "generation"]


class BenchArguments(NamedTuple):
    """A command line, and how often to run it; a program may repeat its tests itself.

    + lines: results that a complete run prints, or 1 where only the program knows
    """

    argv: tuple[str, ...]
    repeat: int = 1
    lines: int = 1


class Case(NamedTuple):
    """One measured case; ``depth_tokens``: tokens of each sequence before the measured ones."""

    test: Test
    depth_tokens: int
    sequences: int


class Sample(NamedTuple):
    """Some samples of one case, in tokens/s."""

    case: Case
    tokens: int
    samples: list[float]


class Lengths(NamedTuple):
    """Tokens that a benchmark is asked to measure; None: as the profile suggests."""

    prompt_tokens: int | None = None
    generated_tokens: int | None = None


AS_SUGGESTED = Lengths()


class Sizes(NamedTuple):
    """Sizes of the cases: prompt, generation, and the depths at which they are measured."""

    prompt_tokens: int
    generated_tokens: int
    depths_tokens: tuple[int, ...]


def sizes(profile: Profile, lengths: Lengths = AS_SUGGESTED) -> Sizes:
    """Sizes for a profile: depths of 0, a quarter, half and all of a slot's context.

    The deepest leaves space for the prompt. Depths are multiples of the micro-batch, as
    ik_llama.cpp counts them, so that all engines can measure them. Raises CorralError for lengths
    that do not fit in a slot.
    """
    whole, step = profile.context_tokens_per_slot, profile.ubatch_tokens
    prompt = lengths.prompt_tokens or min(512, whole // 2)
    generated = lengths.generated_tokens or min(128, whole // 2)
    if prompt + generated > whole:
        what = f"do not fit in the context of a slot, {whole} tokens"
        where = f"a prompt of {prompt} and {generated} generated tokens"
        raise CorralError(where, what, "choose --prompt-tokens and --generated-tokens that do")
    deepest = whole - max(prompt, generated)
    wanted = (min(depth, deepest) for depth in (0, whole // 4, whole // 2, deepest))
    return Sizes(prompt, generated, tuple(sorted({depth // step * step for depth in wanted})))
