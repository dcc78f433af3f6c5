"""`python -m lab.chaos.page FILE`: print a record's tables in Markdown, for docs/measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from lab.chaos import controls, scenarios
from lab.chaos.alerts import TIMES
from lab.chaos.record import KINDS
from lab.chaos.table import markdown, tables


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def main(file: Path) -> None:
    """Print which commit was tested, how much was played, and the tables of FILE."""
    document = json.loads(file.read_text())
    click.echo("\n\n".join([headline(document), *map(markdown, tables(document))]))


def headline(document: dict[str, Any]) -> str:
    """The commit, the setting, the dates, and what was not played."""
    setting, played = document["setting"], sum(len(document[kind]) for kind in KINDS)
    names = _all(setting)
    missing = sorted(names - {row["name"] for kind in KINDS for row in document[kind]})
    rows = [*document["chores"], *document["scenarios"]]
    broken = [row["name"] for row in rows if row["wrong"]]
    behind = "behind a gateway" if setting["gateway"] else "without a gateway"
    rest = f"not played: {', '.join(missing)}" if missing else "that is all"
    lines = [
        f"Commit {setting['commit']}, {setting['servers']} servers {behind}, changes by"
        f" {setting['by']}; begun {', '.join(document['sittings'])}.",
        f"{played} of {len(names)} played; {rest}.",
        f"Rule broken by: {', '.join(broken) or 'none'}.",
    ]
    if setting.get("alerts"):
        lines.append(f"Watched: every duration of rules and scrapes 1/{TIMES}.")
    return "\n".join(lines)


def _all(setting: dict[str, Any]) -> set[str]:
    gateway, servers = setting["gateway"], setting["servers"]
    kinds = (
        scenarios.all_chores(has_gateway=gateway, servers=servers),
        scenarios.all_scenarios(has_gateway=gateway),
        controls.CONTROLS,
    )
    return {one.name for kind in kinds for one in kind}


if __name__ == "__main__":
    main()
