"""What a load test sends: lengths, numbers of prompts, arrival rates; presets and limits."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple

from corral.engines.load import AT_ONCE, LoadCase
from corral.errors import CorralError

# Published measurements of vLLM use these: prompt-heavy, generation-heavy, balanced.
WORKLOADS = ("8000/1000", "1000/8000", "1000/1000")
PROMPTS = (1, 16, 32, 64, 128, 256, 512)
# More is a mistake in typing, or an attack on the server.
MOST_PROMPTS, MOST_CONCURRENCY, MOST_RUNS, MOST_TOKENS = 10_000, 1024, 64, 1_000_000
MOST_RATE = 10_000.0

_LENGTHS = "name tokens of the prompt and of the answer, such as 1000/1000"


class Lengths(NamedTuple):
    """Tokens of each prompt and of each answer."""

    input_tokens: int
    output_tokens: int

    def __str__(self) -> str:
        return f"{self.input_tokens}/{self.output_tokens}"


def lengths(text: str) -> Lengths:
    """Read ``INPUT/OUTPUT``. Raises CorralError."""
    first, slash, second = text.partition("/")
    numbers = [int(part) for part in (first, second) if part.isascii() and part.isdigit()]
    if not slash or len(numbers) != 2 or not all(0 < n <= MOST_TOKENS for n in numbers):
        raise CorralError(f"--workload {text}", "is not INPUT/OUTPUT in tokens", _LENGTHS)
    return Lengths(*numbers)


def cases(
    workloads: Sequence[Lengths],
    prompts: Sequence[int],
    rates: Sequence[float | Literal["inf"]] = (AT_ONCE,),
    concurrencies: Sequence[int | None] = (None,),
) -> tuple[LoadCase, ...]:
    """All combinations, in the given order. Raises CorralError for more than is sensible."""
    _refuse_more("--prompts", prompts, MOST_PROMPTS)
    _refuse_more("--concurrency", [n for n in concurrencies if n], MOST_CONCURRENCY)
    _refuse_more("--request-rate", [r for r in rates if r != AT_ONCE], MOST_RATE)
    found = tuple(
        LoadCase(
            input_tokens=lengths.input_tokens,
            output_tokens=lengths.output_tokens,
            num_prompts=number,
            request_rate=rate,
            max_concurrency=concurrency,
        )
        for lengths, rate, concurrency, number in itertools.product(
            workloads, rates, concurrencies, prompts
        )
    )
    for case in found:
        if case.max_concurrency is None and case.num_prompts > MOST_CONCURRENCY:
            what = f"{case.num_prompts} requests would be in flight, the limit is"
            step = f"add --concurrency, of at most {MOST_CONCURRENCY}"
            raise CorralError(f"--prompts {case.num_prompts}", f"{what} {MOST_CONCURRENCY}", step)
    if len(found) > MOST_RUNS:
        what = f"are {len(found)} measurements, the limit is {MOST_RUNS}"
        raise CorralError("the combinations", what, "name fewer values")
    return found


def refuse_longer(cases: Sequence[LoadCase], context_tokens: int, *, where: str) -> None:
    """Raise CorralError for requests that do not fit in a slot's context."""
    for case in cases:
        needed = case.input_tokens + case.output_tokens
        if needed > context_tokens:
            what = (
                f"{case.input_tokens}/{case.output_tokens} needs {needed} tokens, and a slot has "
                f"{context_tokens}"
            )
            raise CorralError(where, what, f"add --workload with at most {context_tokens} together")


def _refuse_more(option: str, values: Sequence[float], most: float) -> None:
    for value in values:
        if not 0 < value <= most:
            step = f"name a positive number of at most {most:g}"
            raise CorralError(f"{option} {value:g}", f"the limit is {most:g}", step)
