"""The tables of a hard day's record, for a terminal and for a page in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.table import Table

_Row = dict[str, Any]
# Of a row in which the fleet was watched.
_ALERTS = "alert: pending, fires"


@dataclass(frozen=True)
class Lines:
    """A table as text."""

    heads: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]


def tables(document: dict[str, Any]) -> list[Lines]:
    """Tables of chores, scenarios and controls, except for kinds without rows."""
    has_alerts = bool(document["setting"].get("alerts"))
    last = (_ALERTS,) if has_alerts else ()
    found = [
        _lines(("change", "how", "typed: exit code", "failed", "verify, two clones", "rule",
                *last), document["chores"], partial(_chore, has_alerts=has_alerts)),
        _lines(("fault", "when", "outcome", "exit code", "failed", "recovery", "rule", *last),
               document["scenarios"], partial(_scenario, has_alerts=has_alerts)),
        _lines(("fault, with a plain restart", "what clients saw"),
               document["controls"], _control),
    ]  # fmt: skip
    return [lines for lines in found if lines.cells]


def for_terminal(lines: Lines) -> Table:
    """The table for rich."""
    shown = Table(*lines.heads)
    for row in lines.cells:
        shown.add_row(*row)
    return shown


def markdown(lines: Lines) -> str:
    """The table in Markdown."""
    rows = [lines.heads, ("---",) * len(lines.heads), *lines.cells]
    return "\n".join(f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in rows)


def _lines(
    heads: tuple[str, ...], rows: Sequence[_Row], cells: Callable[[_Row], tuple[str, ...]]
) -> Lines:
    return Lines(heads, tuple(cells(row) for row in rows))


def _chore(row: _Row, *, has_alerts: bool) -> tuple[str, ...]:
    return (
        row["change"],
        row["how"],
        _counted(row["commands"]),
        f"{row['failed']} of {row['asked']}",
        _counted(row["verified"]),
        _rule(row),
        *_alerts(row, has_alerts),
    )


def _scenario(row: _Row, *, has_alerts: bool) -> tuple[str, ...]:
    return (
        row["fault"],
        row["phase"],
        row["outcome"],
        "killed" if row["exit_code"] is None else str(row["exit_code"]),
        f"{row['failed']} of {row['asked']}",
        _seconds(row["recovery_seconds"]),
        _rule(row),
        *_alerts(row, has_alerts),
    )


def _control(row: _Row) -> tuple[str, ...]:
    return row["fault"], row["words"] or "NOTHING WAS SEEN"


def _alerts(row: _Row, has_alerts: bool) -> tuple[str, ...]:
    return (", ".join(map(_alert, row["alerts"])),) if has_alerts else ()


def _alert(seen: dict[str, Any]) -> str:
    """One alert, with the seconds until it was pending and until it fired, if it did."""
    times = [seen["pending_seconds"], seen["firing_seconds"]]
    return f"{seen['alert']} {', '.join(f'{one:.0f} s' for one in times if one is not None)}"


def _rule(row: _Row) -> str:
    return "BROKEN: " + "; ".join(row["wrong"]) if row["wrong"] else "held"


def _counted(texts: Sequence[str]) -> str:
    """Each text once, in order, with the number of repetitions."""
    times = {text: texts.count(text) for text in texts}
    return ", ".join(text if count == 1 else f"{text} ({count}x)" for text, count in times.items())


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s" if value else ""


def _escaped(cell: str) -> str:
    return " ".join(cell.replace("|", "\\|").split())
