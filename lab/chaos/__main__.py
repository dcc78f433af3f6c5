"""`make chaos`: every scenario on lab hosts, a table, and exit code 1 when the rule was broken."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path

import click
from rich.console import Console

from lab.chaos import controls, scenarios
from lab.chaos.controls import Control, Damage
from lab.chaos.fleet import By, Fleet
from lab.chaos.play import Player, Row, Scenario
from lab.chaos.table import controls_table, document, table
from lab.layout import this_lab

_WIDTH = 160


@click.command()
@click.option("--only", multiple=True, help="Scenarios and controls by name; * fits anything.")
@click.option("--by", type=click.Choice(["rollout", "deploy"]), default="rollout")
@click.option("--gateway/--no-gateway", default=True, help="A gateway in front of the servers.")
@click.option("--servers", type=click.IntRange(1, 3), default=3, show_default=True)
@click.option("--list", "only_list", is_flag=True, help="Name the scenarios and end.")
@click.option("--keep", is_flag=True, help="Leave the lab up, to look at it.")
@click.option("--json", "file", type=click.Path(path_type=Path), default=Path("chaos.json"))
def main(
    only: tuple[str, ...],
    by: By,
    gateway: bool,
    servers: int,
    only_list: bool,
    keep: bool,
    file: Path,
) -> None:
    """Play the lab's hard day; exit code 1 when a rule was broken, or a control saw no damage."""
    known = scenarios.all_scenarios(has_gateway=gateway)
    wanted = [one for one in known if _is_named(one.name, only)]
    plain = [one for one in controls.CONTROLS if _is_named(one.name, only)]
    if only_list:
        click.echo("\n".join([*(one.name for one in wanted), *(one.name for one in plain)]))
        return
    fleet = Fleet.make(servers=servers, gateway=gateway)
    rows, damages = _play(fleet, by, wanted), _control(fleet, plain)
    if not keep:
        fleet.remove()
    file.write_text(json.dumps(document(rows, damages), indent=1) + "\n")
    for shown in (table(rows), controls_table(damages)):
        Console(width=_WIDTH).print(shown)
    held = not any(row.wrong for row in rows) and all(damage.words for damage in damages)
    sys.exit(0 if held else 1)


def _is_named(name: str, only: Sequence[str]) -> bool:
    return not only or any(fnmatch(name, pattern) for pattern in only)


def _play(fleet: Fleet, by: By, wanted: Sequence[Scenario]) -> list[Row]:
    player, rows = Player(fleet, by, _folder()), []
    for scenario in wanted:
        row = player.play(scenario)
        click.echo(json.dumps(asdict(row)))
        rows.append(row)
    return rows


def _control(fleet: Fleet, wanted: Sequence[Control]) -> list[Damage]:
    damages = []
    for control in wanted:
        damage = controls.play(fleet, control, _folder())
        click.echo(json.dumps(asdict(damage)))
        damages.append(damage)
    return damages


def _folder() -> Path:
    """Records of the loads, beside the lab's caches, for a look afterwards."""
    folder = this_lab().cache / "chaos"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    main()
