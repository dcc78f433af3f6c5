"""`python -m lab.alerts.page FILE...`: print records in Markdown, for docs/measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from lab.chaos.table import Lines, markdown

_HEADS = ("alert", "fault", "pending", "fires", "ends", "as shipped: fires, ends", "beside it")


@click.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
def main(files: tuple[Path, ...]) -> None:
    """Print what was tested, and the tables of FILES."""
    click.echo("\n\n".join(markdown_of(json.loads(file.read_text())) for file in files))


def markdown_of(document: dict[str, Any]) -> str:
    """Which commit was tested, how fast, and the result."""
    times = document["times"]
    pace = "shipped times" if times == 1 else f"every duration of rules and scrapes 1/{times}"
    head = f"Commit {document['commit']}, begun {document['began']}; {pace}."
    parts = [head]
    if "faults" in document:
        parts.append(markdown(_of_faults(document["faults"], times)))
    if "healthy" in document:
        parts.append(_of_health(document["healthy"]))
    return "\n\n".join(parts)


def _of_faults(rows: list[dict[str, Any]], times: int) -> Lines:
    return Lines(_HEADS, tuple(_cells(row, times) for row in rows))


def _cells(row: dict[str, Any], times: int) -> tuple[str, ...]:
    ends = row["resolved_seconds"]
    shipped = f"{_minutes(row['firing_seconds'], times)}, {_minutes(ends, times)}"
    return (
        row["alert"],
        row["fault"] + (f" (WRONG: {row['wrong']})" if row["wrong"] else ""),
        _seconds(row["pending_seconds"]),
        _seconds(row["firing_seconds"]),
        _seconds(ends),
        shipped,
        ", ".join(row["others"]),
    )


def _of_health(found: dict[str, Any]) -> str:
    fired = [one for one in found["alerts"] if one["firing_seconds"] is not None]
    pending = [one["alert"] for one in found["alerts"] if one not in fired]
    share = found["slowest_share"]
    lines = [
        f"{found['minutes']:g} minutes, {found['asked']} requests, {found['failed']} failed.",
        f"Alerts that fired: {', '.join(one['alert'] for one in fired) or 'none'}.",
        f"Alerts that were pending for a while: {', '.join(pending) or 'none'}.",
        f"Scrapes that failed: {found['targets_down']}.",
        f"Load average of the machine: {found['loads'][0]:.1f} to {found['loads'][1]:.1f}.",
    ]
    if share is not None:
        lines.append(f"Slowest ten minutes: {share:.0%} of the baseline's tokens/s.")
    return "\n".join(lines)


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.0f} s"


def _minutes(value: float | None, times: int) -> str:
    return "never" if value is None else f"{value * times / 60:.1f} min"


if __name__ == "__main__":
    main()
