"""Comparison of two results: which is faster at each depth, or no difference."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Literal

from corral_shared import welch

from corral.bench.result import Measure, Result, Subject, by_depth
from corral.engines.benchmark import Case, Test
from corral.errors import CorralError
from corral.schema import Frozen

Verdict = Literal["a", "b", "none", "unknown"]
Better = Literal["higher", "lower"]


class Side(Frozen):
    """Summary of samples, in tokens/s."""

    mean: float
    deviation: float
    samples: int


class Row(Frozen):
    """One common case; ``ratio``: A's mean by B's; ``margin``: half of the 95% interval."""

    test: Test
    depth_tokens: int
    sequences: int
    a: Side
    b: Side
    ratio: float
    margin: float | None
    verdict: Verdict
    says: str


class Comparison(Frozen):
    """A comparison; ``notes``: other differences between the results."""

    a: str
    b: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def compare(a: Result, b: Result) -> Comparison:
    """Compare every common case, by depth. Raises CorralError when there is none."""
    of_a, of_b = ({m.case: m for m in one.measures} for one in (a, b))
    common = sorted(of_a.keys() & of_b.keys(), key=by_depth)
    if not common:
        what = "no depth was measured in both"
        step = "compare instances with the same context, or run `corral bench` again"
        raise CorralError(f"{label(a)} and {label(b)}", what, step)
    rows = tuple(compare_measures(of_a[case], of_b[case]) for case in common)
    notes = (*_differences(a, b), *_lone(of_a.keys() ^ of_b.keys()), *_sizes(of_a, of_b, common))
    return Comparison(a=label(a), b=label(b), rows=rows, notes=notes)


def label(result: Subject) -> str:
    """The name of a result, for display."""
    return f"{result.name}@{result.release} of {result.began_at}"


def compare_measures(a: Measure, b: Measure) -> Row:
    """Compare two measurements by Welch's 95% interval of the difference of means."""
    one, other = side(a.samples), side(b.samples)
    margin = welch_margin(a.samples, b.samples)
    found = verdict(one.mean - other.mean, margin)
    ratio = one.mean / other.mean
    return Row(
        test=a.test,
        depth_tokens=a.depth_tokens,
        sequences=a.sequences,
        a=one,
        b=other,
        ratio=ratio,
        margin=margin,
        verdict=found,
        says=_says(found, ratio),
    )


def side(samples: Sequence[float]) -> Side:
    """Mean and standard deviation; 0 for a single sample."""
    deviation = statistics.stdev(samples) if len(samples) > 1 else 0.0
    return Side(mean=statistics.fmean(samples), deviation=deviation, samples=len(samples))


def welch_margin(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Half of the 95% interval of the difference of two means; None with less than two samples."""
    return None if min(len(a), len(b)) < 2 else welch.margin(a, b)


def verdict(difference: float, margin: float | None, better: Better = "higher") -> Verdict:
    """Which side is better, by the difference of its means A - B and ``welch_margin``."""
    if margin is None:
        return "unknown"
    if abs(difference) <= margin:
        return "none"
    return "a" if (difference > 0) == (better == "higher") else "b"


def percent_more(ratio: float) -> str:
    """By how much the larger of two figures is larger."""
    percent = 100 * (ratio - 1)
    return f"{percent:.{0 if percent >= 10 else 1}f}%"


def _says(found: Verdict, ratio: float) -> str:
    if found == "unknown":
        return "too few samples"
    if found == "none":
        return "no difference"
    return f"{found.upper()} faster by {percent_more(ratio if found == 'a' else 1 / ratio)}"


def _differences(a: Result, b: Result) -> Iterator[str]:
    """Other differences, which could be the reason."""
    for what in ("devices", "model", "quant", "profile", "where"):
        one, other = getattr(a, what), getattr(b, what)
        if one != other:
            yield f"{what} differs: {one} and {other}"


def _lone(cases: set[Case]) -> Iterator[str]:
    if cases:
        depths = sorted({case.depth_tokens for case in cases})
        yield f"measured in one only: depths {', '.join(map(str, depths))}"


def _sizes(
    of_a: dict[Case, Measure], of_b: dict[Case, Measure], common: Sequence[Case]
) -> Iterator[str]:
    pairs = {(c.test, of_a[c].tokens, of_b[c].tokens) for c in common}
    for test, one, other in sorted(pairs):
        if one != other:
            yield f"{test}: {one} tokens at a time in A, {other} in B"
