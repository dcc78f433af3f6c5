"""Tables of benchmark results."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from corral.bench.compare import Comparison, Row, Side, side
from corral.bench.result import Result, by_depth
from corral.bench.store import Stored
from corral.terminal import Rows, coloured

COLOURS = {"a": "green", "b": "yellow", "none": "default", "unknown": "dim"}


def result_table(result: Result) -> Rows:
    """One row for each measurement."""
    table = Rows("test", "depth", "tokens", "at a time", "tokens/s", "samples")
    for m in sorted(result.measures, key=lambda m: by_depth(m.case)):
        found = side(m.samples)
        test, depth = m.test, f"{m.depth_tokens:,}"
        speed, samples = _speed(found), str(found.samples)
        table.add(test, depth, str(m.tokens), str(m.sequences), speed, samples)
    return table


def listing_table(results: Sequence[Stored]) -> Rows:
    """One row for each result."""
    heads = ("instance", "began", "test", "release", "model", "profile", "on", "where")
    table = Rows(*heads)
    for r in results:
        model = f"{r.model} {r.quant}"
        release = f"{r.engine} {r.release}"
        test = "bench" if isinstance(r, Result) else "load"
        table.add(r.name, r.began_at, test, release, model, r.profile, r.devices, r.placed)
    return table


def comparison_table(comparison: Comparison) -> Rows:
    """One row for each case; speeds are tokens/s."""
    table = Rows("test", "depth", "at a time", "A", "B", "A/B", "")
    for row in comparison.rows:
        table.add(*_cells(row))
    return table


def _cells(row: Row) -> tuple[str | Text, ...]:
    colour = COLOURS[row.verdict]
    return (
        row.test,
        f"{row.depth_tokens:,}",
        str(row.sequences),
        _speed(row.a),
        _speed(row.b),
        f"{row.ratio:.3f}",
        coloured(row.says, colour),
    )


def _speed(found: Side) -> str:
    """Mean, and the standard deviation as its spread."""
    return f"{found.mean:,.2f} ± {found.deviation:,.2f}"
