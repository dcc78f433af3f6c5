"""`make chaos` (with --alerts): play chores, faults and controls on lab hosts, and print tables.

The exit code is 1 if the rule was broken.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from corral.errors import CorralError
from lab.alerts import pace
from lab.chaos import controls, scenarios, second_day
from lab.chaos.alerts import TIMES, monitored
from lab.chaos.fleet import Fleet
from lab.chaos.operators import By
from lab.chaos.play import Player
from lab.chaos.record import Kind, Record, Setting, commit_of
from lab.chaos.table import for_terminal, tables
from lab.layout import this_lab

_WIDTH = 160
# Kind of row, name, and the function that plays it.
Piece = tuple[Kind, str, Callable[[Player], Any]]


@click.command()
@click.option("--only", multiple=True, help="Names of --list to play; * matches anything.")
@click.option("--by", type=click.Choice(["rollout", "deploy"]), default="rollout")
@click.option("--gateway/--no-gateway", default=True, help="A gateway in front of the servers.")
@click.option("--alerts", is_flag=True, help="The gateway host watches the others, by Prometheus.")
@click.option("--servers", type=click.IntRange(1, 3), default=3, show_default=True)
@click.option("--list", "only_list", is_flag=True, help="Print the names of all that is played.")
@click.option("--keep", is_flag=True, help="Leave the lab up, for inspection.")
@click.option(
    "--record",
    "file",
    type=click.Path(path_type=Path),
    default=Path("chaos.json"),
    show_default=True,
    help="The file for the results; `python -m lab.chaos.page` prints it.",
)
@click.option("--resume", is_flag=True, help="Play what this commit's record does not have.")
def main(
    only: tuple[str, ...],
    by: By,
    gateway: bool,
    alerts: bool,
    servers: int,
    only_list: bool,
    keep: bool,
    file: Path,
    resume: bool,
) -> None:
    """Play the lab's hard day; exit code 1 if a rule was broken, or a control saw no damage."""
    wanted = [one for one in _pieces(gateway, servers) if _is_named(one[1], only)]
    if only_list:
        click.echo("\n".join(name for _, name, _ in wanted))
        return
    alerts = alerts and gateway
    setting = Setting(commit_of(this_lab().checkout), by, servers, gateway, alerts)
    try:
        record = (Record.resume if resume else Record.begin)(file, setting)
    except CorralError as error:
        raise SystemExit(str(error)) from error
    left = [one for one in wanted if not record.has(one[0], one[1])]
    if left:
        _play(left, setting, record, keep=keep)
    for lines in tables(record.document):
        Console(width=_WIDTH).print(for_terminal(lines))
    sys.exit(0 if record.held else 1)


def _pieces(gateway: bool, servers: int) -> Iterator[Piece]:
    for chore in scenarios.all_chores(has_gateway=gateway, servers=servers):
        yield "chores", chore.name, partial(second_day.play, chore=chore)
    for scenario in scenarios.all_scenarios(has_gateway=gateway):
        yield "scenarios", scenario.name, partial(Player.play, scenario=scenario)
    for control in controls.CONTROLS:
        yield "controls", control.name, partial(_control, control=control)


def _control(player: Player, control: controls.Control) -> controls.Damage:
    return controls.play(player.fleet, control, player.folder)


def _is_named(name: str, only: Sequence[str]) -> bool:
    return not only or any(fnmatch(name, pattern) for pattern in only)


def _play(pieces: Sequence[Piece], setting: Setting, record: Record, *, keep: bool) -> None:
    fleet = _fleet(setting)
    player = Player(fleet, setting.by, _folder(), alerts=setting.alerts)
    try:
        for kind, _, play in pieces:
            row = play(player)
            click.echo(json.dumps(asdict(row)))
            record.add(kind, row)
    except KeyboardInterrupt:
        click.echo("interrupted; the same command with --resume goes on", err=True)
        raise
    finally:
        if not keep:
            fleet.remove()


def _fleet(setting: Setting) -> Fleet:
    servers, gateway = setting.servers, setting.gateway
    if not setting.alerts:
        return Fleet.make(servers=servers, gateway=gateway)
    fleet = Fleet.make(servers=servers, gateway=gateway, hosts=monitored(servers))
    pace.apply(fleet.checkout.path, TIMES)
    return fleet


def _folder() -> Path:
    """The folder for records of the loads, beside the lab's caches."""
    folder = this_lab().cache / "chaos"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    main()
