"""`python -m lab.alerts`: each alert fires by a real fault and resolves after it.

With `--healthy MINUTES`: none fires in a healthy lab under load, at the shipped times. The exit
code is 1 if it was otherwise.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import click

from corral.files import write_atomic
from lab.alerts import healthy
from lab.alerts.faults import CAUSES, Cause
from lab.alerts.host import Watched
from lab.alerts.pace import SHIPPED
from lab.alerts.page import markdown_of
from lab.alerts.play import play
from lab.chaos.record import commit_of
from lab.layout import ROOM, this_lab

TIMES = 15


@click.command()
@click.option("--only", multiple=True, help="Names of --list to play; * matches anything.")
@click.option("--list", "only_list", is_flag=True, help="Print the names of all faults.")
@click.option(
    "--faster", "times", type=click.IntRange(1, 60), default=TIMES, show_default=True,
    help="Every duration of rules and scrapes is divided by this; 1: as shipped.",
)  # fmt: skip
@click.option(
    "--healthy", "minutes", type=click.FloatRange(min=1),
    help="No faults, for so long, at the shipped times.",
)  # fmt: skip
@click.option(
    "--record", "file", type=click.Path(path_type=Path), default=Path("alerts.json"),
    show_default=True, help="The file for the results; `python -m lab.alerts.page` prints it.",
)  # fmt: skip
@click.option("--keep", is_flag=True, help="Leave the lab up, for inspection.")
def main(
    only: tuple[str, ...],
    only_list: bool,
    times: int,
    minutes: float | None,
    file: Path,
    keep: bool,
) -> None:
    """Make every alert fire and resolve, or see that none fires."""
    wanted = [one for one in CAUSES if not only or any(fnmatch(one.name, name) for name in only)]
    if only_list:
        click.echo("\n".join(one.name for one in wanted))
        return
    # What is tested is what stood here before the lab came up.
    commit = commit_of(this_lab().checkout)
    watched = Watched.make("healthy" if minutes else "faults", SHIPPED if minutes else times)
    document: dict[str, Any] = {"commit": commit, "began": _now(), "times": watched.times}
    if minutes:
        found = healthy.watch(watched, minutes)
        document["healthy"] = asdict(found)
        held = found.is_quiet
    else:
        held = _play(watched, wanted, document, file)
    _write(document, file)
    click.echo(markdown_of(document))
    if not keep:
        watched.fleet.remove()
    sys.exit(0 if held else 1)


def _play(watched: Watched, wanted: list[Cause], document: dict[str, Any], file: Path) -> bool:
    document["faults"] = []
    for cause in wanted:
        row = play(watched, cause)
        click.echo(json.dumps(asdict(row)))
        document["faults"].append(asdict(row))
        _write(document, file)
    return not any(row["wrong"] for row in document["faults"])


def _write(document: dict[str, Any], file: Path) -> None:
    write_atomic(file, json.dumps(document, indent=1) + "\n", next_step=ROOM)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


if __name__ == "__main__":
    main()
