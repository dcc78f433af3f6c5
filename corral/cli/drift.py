"""`corral drift`: where hosts differ from what was last deployed, by their own records."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from corral.cli.documents import Document, rows_by_host
from corral.cli.reach import Target, mistakes_of, reach, reach_all
from corral.cli.select import inventory_option
from corral.errors import CorralError
from corral.host.answers import DRIFT, DriftRow
from corral.planning.host_paths import host_paths
from corral.remote.client import travelling_helper
from corral.remote.run import on_all
from corral.terminal import Rows, echo, show

_DRIFT = Document(
    "drift",
    rows_by_host(DriftRow),
    "corral drift",
    about="Where each host differs from what was last deployed there.",
)


@click.command()
@click.argument("names", nargs=-1, metavar="[HOST]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@inventory_option
def drift(names: tuple[str, ...], as_json: bool, inventory: Path | None) -> None:
    """Show where hosts differ from what was last deployed; nothing is changed.

    By their own records: units, drop-ins, keys, releases, weights, driver, kernel command line,
    gateway, monitoring, unknown units.
    `corral diff` compares with the inventory instead. Without names: all hosts of inventories/,
    except examples and labs. Exit code 0: no drift, 2: some, 1: a host did not answer.
    """
    targets = reach(names, inventory) if names or inventory else reach_all("corral drift")
    answers = dict(
        zip((target.host.name for target in targets), on_all(drift_of, targets), strict=True)
    )
    mistakes = mistakes_of(targets)
    if as_json:
        _DRIFT.show({n: a.what if isinstance(a, CorralError) else a for n, a in answers.items()})
    else:
        _print(answers)
    failed = any(isinstance(answer, CorralError) for answer in answers.values())
    sys.exit(1 if failed or mistakes else 2 if any(answers.values()) else 0)


def drift_of(target: Target) -> list[DriftRow] | CorralError:
    """Rows of a host, with its name in the next steps, or why there are none."""
    document = f'{{"paths": {host_paths(target.host).model_dump_json()}}}'
    try:
        rows = travelling_helper(target.host).ask(["drift"], DRIFT, document)
    except CorralError as error:
        return error
    # The host does not know its name in the inventory.
    name = target.host.name
    return [row.model_copy(update={"next_step": row.next_for(name)}) for row in rows]


def _print(answers: dict[str, list[DriftRow] | CorralError]) -> None:
    table = Rows("host", "where", "planned", "found", "next")
    for name, answer in answers.items():
        if isinstance(answer, CorralError):
            echo(f"{name}: {answer.in_one_line}", err=True)
            continue
        for row in answer:
            table.add(name, row.where, row.planned, row.found, row.next_step)
    if any(answer for answer in answers.values() if not isinstance(answer, CorralError)):
        show(table)
    elif not any(isinstance(answer, CorralError) for answer in answers.values()):
        echo("no drift")
