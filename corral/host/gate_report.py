"""Rows of a gate's report (files/corral_host/instance/gate_rows.py), and a table of them."""

from __future__ import annotations

from collections.abc import Sequence

from corral.schema import Frozen
from corral.terminal import Rows, coloured, plain

_MARKS = {True: coloured("ok", "green"), False: coloured("FAILED", "red"), None: plain("-")}


class Row(Frozen):
    """One part of the gate; ``ok`` is None for one that was not asked after another failed."""

    part: str
    ok: bool | None
    figure: str
    limit: str
    detail: str


def gate_table(rows: Sequence[Row]) -> Rows:
    """One row a part, in the order in which they were asked."""
    table = Rows("part", "", "figure", "limit", "detail")
    for row in rows:
        table.add(row.part, _MARKS[row.ok], row.figure, row.limit, row.detail)
    return table
