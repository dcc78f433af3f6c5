"""Comparison of two load tests, figure by figure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from corral.bench.compare import (
    Better,
    Side,
    Verdict,
    label,
    percent_more,
    side,
    verdict,
    welch_margin,
)
from corral.bench.load.figures import LATENCIES, LoadRun
from corral.bench.load.result import LoadResult
from corral.engines.load import LoadCase
from corral.errors import CorralError
from corral.schema import Frozen

THROUGHPUTS = ("request_throughput", "output_throughput", "total_token_throughput")
# Figures that are compared -> which is better.
FIGURES: dict[str, Better] = {
    **dict.fromkeys(THROUGHPUTS, "higher"),
    **{f"{which}_{name}_ms": "lower" for name in LATENCIES for which in ("mean", "median", "p99")},
}
_DIFFERENCES = ("devices", "model", "quant", "profile", "path", "through", "program", "slots")


class LoadRow(Frozen):
    """One figure of one common case; a sample is the figure of one repetition.

    + ratio: A's mean by B's, None where B's is 0; + margin: half of the 95% interval
    """

    case: LoadCase
    figure: str
    a: Side
    b: Side
    ratio: float | None
    margin: float | None
    verdict: Verdict
    says: str


class LoadComparison(Frozen):
    """A comparison; ``notes``: other differences between the results, and failures."""

    a: str
    b: str
    rows: tuple[LoadRow, ...]
    notes: tuple[str, ...]


def compare_loads(a: LoadResult, b: LoadResult) -> LoadComparison:
    """Compare every figure of every common case. Raises CorralError when there is none."""
    of_a, of_b = by_case(a), by_case(b)
    common = [case for case in of_a if case in of_b]
    if not common:
        what = "no case (lengths, prompts, rate, concurrency) was measured in both"
        raise CorralError(f"{label(a)} and {label(b)}", what, "run the same load test for both")
    rows = [row for case in common for row in _rows(case, of_a[case], of_b[case])]
    notes = (*_differences(a, b), *_failures("A", a), *_failures("B", b))
    return LoadComparison(a=label(a), b=label(b), rows=tuple(rows), notes=notes)


def by_case(result: LoadResult) -> dict[LoadCase, list[LoadRun]]:
    """The repetitions of each case, in the order of the first."""
    found: dict[LoadCase, list[LoadRun]] = defaultdict(list)
    for run in result.runs:
        found[run.case].append(run)
    return dict(found)


def samples(runs: Sequence[LoadRun], figure: str) -> list[float]:
    """A figure of each repetition that has it."""
    return [value for run in runs if (value := run.figure(figure)) is not None]


def _rows(case: LoadCase, a: Sequence[LoadRun], b: Sequence[LoadRun]) -> Iterator[LoadRow]:
    for figure, better in FIGURES.items():
        of_a, of_b = samples(a, figure), samples(b, figure)
        if of_a and of_b:
            yield _row(case, figure, better, of_a, of_b)


def _row(
    case: LoadCase, figure: str, better: Better, a: Sequence[float], b: Sequence[float]
) -> LoadRow:
    one, other, margin = side(a), side(b), welch_margin(a, b)
    found = verdict(one.mean - other.mean, margin, better)
    return LoadRow(
        case=case,
        figure=figure,
        a=one,
        b=other,
        ratio=one.mean / other.mean if other.mean else None,
        margin=margin,
        verdict=found,
        says=_says(found, one.mean, other.mean),
    )


def _says(found: Verdict, a: float, b: float) -> str:
    if found == "unknown":
        return "one sample: repeat it"
    if found == "none":
        return "no difference"
    if not min(a, b):
        return f"{found.upper()} better"
    return f"{found.upper()} better by {percent_more(max(a, b) / min(a, b))}"


def _differences(a: LoadResult, b: LoadResult) -> Iterator[str]:
    """Other differences, which could be the reason."""
    for what in _DIFFERENCES:
        one, other = getattr(a, what), getattr(b, what)
        if one != other:
            yield f"{what} differs: {one or 'none'} and {other or 'none'}"
    lone = by_case(a).keys() ^ by_case(b).keys()
    if lone:
        yield f"measured in one only: {len(lone)} cases"


def _failures(which: str, result: LoadResult) -> Iterator[str]:
    if result.failed:
        sent = sum(run.completed + run.failed for run in result.runs)
        yield f"{which}: {result.failed} of {sent} requests failed or ended early"
    if result.in_flight:
        yield f"{which}: the server had {result.in_flight} requests of others when it began"
