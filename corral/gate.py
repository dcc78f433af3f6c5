"""Rows of a gate's report (files/corral_host/gate_rows.py), and a table of them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from corral.schema import Frozen

_MARKS = {True: "[green]ok[/]", False: "[red]FAILED[/]", None: "-"}


class Row(Frozen):
    """One part of the gate; ``ok`` is None for one that was not asked after another failed."""

    part: str
    ok: bool | None
    figure: str
    limit: str
    detail: str


def gate_table(rows: Sequence[Row]) -> Table:
    """One row a part, in the order in which they were asked."""
    table = Table("part", "", "figure", "limit", "detail", box=None)
    for row in rows:
        texts = map(escape, (row.figure, row.limit, row.detail))
        table.add_row(row.part, _MARKS[row.ok], *texts)
    return table
