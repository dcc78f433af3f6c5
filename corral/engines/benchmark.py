"""Benchmark cases of all engines, and arguments and results of benchmark programs."""

from __future__ import annotations

from typing import Literal, NamedTuple

from corral.catalog.profile import Profile

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


class Sizes(NamedTuple):
    """Sizes of the cases: prompt, generation, and the depths at which they are measured."""

    prompt_tokens: int
    generated_tokens: int
    depths_tokens: tuple[int, ...]


def sizes(profile: Profile) -> Sizes:
    """Sizes for a profile: depths of 0, a quarter, half and all of a slot's context.

    The deepest leaves space for the prompt. Depths are multiples of the micro-batch, as
    ik_llama.cpp counts them, so that all engines can measure them.
    """
    whole, step = profile.context_tokens_per_slot, profile.ubatch_tokens
    prompt, generated = min(512, whole // 2), min(128, whole // 2)
    wanted = (0, whole // 4, whole // 2, whole - max(prompt, generated))
    return Sizes(prompt, generated, tuple(sorted({depth // step * step for depth in wanted})))
