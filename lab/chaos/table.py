"""The table of a hard day, for people, and the same as a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from lab.chaos.controls import Damage
from lab.chaos.play import Row


def table(rows: Sequence[Row]) -> Table:
    """One line a scenario; what broke the rule stands below it."""
    shown = Table("fault", "phase", "outcome", "exit", "failed", "recovery (s)", "rule")
    for row in rows:
        shown.add_row(
            row.fault,
            row.phase,
            row.outcome,
            "killed" if row.exit_code is None else str(row.exit_code),
            f"{row.failed} of {row.asked}",
            _seconds(row.recovery_seconds),
            "held" if not row.wrong else "BROKEN: " + "; ".join(row.wrong),
        )
    return shown


def controls_table(damages: Sequence[Damage]) -> Table:
    """What a plain restart does."""
    shown = Table("fault, with a plain restart", "what its clients had of it", "seen")
    for damage in damages:
        shown.add_row(damage.fault, damage.words or "nothing", "yes" if damage.words else "NO")
    return shown


def document(rows: Sequence[Row], damages: Sequence[Damage]) -> dict[str, Any]:
    """Everything, for programs."""
    return {
        "scenarios": [asdict(row) for row in rows],
        "controls": [asdict(damage) for damage in damages],
    }


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f}"
