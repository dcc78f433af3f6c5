"""Tables of load tests."""

from __future__ import annotations

from collections.abc import Iterator

from corral_shared.text import counted
from rich.text import Text

from corral.bench.load.compare import LoadComparison, LoadRow
from corral.bench.load.figures import LATENCIES, LoadRun
from corral.bench.load.result import LoadResult
from corral.cli.views.bench import COLOURS
from corral.engines.load import LoadCase
from corral.terminal import Rows, coloured

# Of one processor: more than this, and the client's own work is in the latencies.
_BUSY_CLIENT = 0.7
_SHOWN = ("mean", "median", "p99")


def load_table(result: LoadResult) -> Rows:
    """One row for each measurement; latencies are mean / median / p99 in ms."""
    heads = ("tokens", "prompts", "at a time", "rate/s", "done", "failed", "early", "requests/s")
    table = Rows(*heads, "output tok/s", "total tok/s", *(f"{n.upper()} ms" for n in LATENCIES))
    for run in result.runs:
        table.add(*_cells(run))
    return table


def load_lines(result: LoadResult) -> Iterator[str]:
    """What belongs to the figures: how they were made, and what is wrong with them."""
    yield (
        f"{result.name} on {result.devices}: {result.engine} {result.release}, {result.model} "
        f"{result.quant}, profile {result.profile}; {result.program}, {result.placed}"
    )
    if result.round_trip_ms is not None:
        yield f"  a round trip of {result.round_trip_ms:.1f} ms is part of each TTFT"
    if result.client_load is not None and result.client_load > _BUSY_CLIENT:
        yield (
            f"  the client used {result.client_load:.0%} of a processor: latencies include its own "
            "work; measure with fewer requests at a time"
        )
    if result.in_flight:
        yield f"  the server had {counted(result.in_flight, 'request')} of others when it began"
    for reason, number in _reasons(result).items():
        yield f"  {number} failed: {reason}"
    if cached := sum(run.cached_input_tokens for run in result.runs):
        yield f"  {cached:,} tokens of prompts came from the server's cache"
    yield from _odd_lengths(result)


def load_comparison_table(comparison: LoadComparison) -> Rows:
    """One row for each figure of each case."""
    table = Rows("case", "figure", "A", "B", "A/B", "")
    for row in comparison.rows:
        table.add(*_compared(row))
    return table


def _compared(row: LoadRow) -> tuple[str | Text, ...]:
    says = coloured(row.says, COLOURS[row.verdict])
    ratio = "-" if row.ratio is None else f"{row.ratio:.3f}"
    a, b = (f"{one.mean:,.2f} ± {one.deviation:,.2f}" for one in (row.a, row.b))
    return case_name(row.case), row.figure, a, b, ratio, says


def case_name(case: LoadCase) -> str:
    """A case in a few words."""
    rate = "" if case.request_rate == "inf" else f", {case.request_rate:g}/s"
    lengths = f"{case.input_tokens}/{case.output_tokens}"
    return f"{lengths}, {case.num_prompts} prompts, {case.concurrency} at a time{rate}"


def _cells(run: LoadRun) -> tuple[str | Text, ...]:
    case = run.case
    return (
        f"{case.input_tokens}/{case.output_tokens}",
        str(case.num_prompts),
        str(case.concurrency),
        str(case.request_rate) if case.request_rate == "inf" else f"{case.request_rate:g}",
        str(run.completed),
        coloured(run.failed, "red" if run.failed else ""),
        coloured(run.ended_early, "red" if run.ended_early else ""),
        f"{run.request_throughput:,.2f}",
        f"{run.output_throughput:,.1f}",
        f"{run.total_token_throughput:,.1f}",
        *(_latency(run, name) for name in LATENCIES),
    )


def _latency(run: LoadRun, name: str) -> str:
    values = [run.figure(f"{statistic}_{name}_ms") for statistic in _SHOWN]
    return " / ".join("-" if value is None else f"{value:,.1f}" for value in values)


def _reasons(result: LoadResult) -> dict[str, int]:
    found: dict[str, int] = {}
    for run in result.runs:
        for reason, number in run.failures.items():
            found[reason] = found.get(reason, 0) + number
    return found


def _odd_lengths(result: LoadResult) -> Iterator[str]:
    """Prompts that the server counted otherwise than they were made."""
    for run in result.runs:
        if run.total_input_tokens != run.completed * run.case.input_tokens:
            mean = run.total_input_tokens / run.completed
            yield f"  {case_name(run.case)}: the server counted {mean:,.1f} tokens a prompt"
