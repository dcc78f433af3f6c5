"""What is measured of any engine, and what its benchmark programs are run with and say."""

from __future__ import annotations

from typing import Literal, NamedTuple

from corral.catalog.profile import Profile

Test = Literal["prompt", "generation"]


class BenchWords(NamedTuple):
    """A command line, and how often it is run; a program may repeat its tests itself.

    + lines: results that a whole run prints, or 1 where only the program knows
    """

    argv: tuple[str, ...]
    repeat: int = 1
    lines: int = 1


class Case(NamedTuple):
    """What was measured: so many tokens for each sequence, after ``depth_tokens`` others."""

    test: Test
    depth_tokens: int
    sequences: int


class Sample(NamedTuple):
    """Some samples of one case, in tokens/s."""

    case: Case
    tokens: int
    samples: list[float]


class Sizes(NamedTuple):
    """What is measured: a prompt and a generation of so many tokens, after so many others."""

    prompt_tokens: int
    generated_tokens: int
    depths_tokens: tuple[int, ...]


def sizes(profile: Profile) -> Sizes:
    """Depths are none, a quarter, half and the whole of a slot's context, less the prompt.

    They are whole micro-batches, as ik_llama.cpp counts them, so that all engines have them.
    """
    whole, step = profile.context_tokens_per_slot, profile.ubatch_tokens
    prompt, generated = min(512, whole // 2), min(128, whole // 2)
    wanted = (0, whole // 4, whole // 2, whole - max(prompt, generated))
    return Sizes(prompt, generated, tuple(sorted({depth // step * step for depth in wanted})))
