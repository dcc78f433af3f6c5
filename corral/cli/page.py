"""`corral page`, `corral watch`: the whole fleet on one page: a file, a browser, a terminal."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from pathlib import Path

import click
from corral_shared.text import counted
from pydantic import TypeAdapter
from rich.live import Live

from corral.cli.documents import Document
from corral.cli.fleet_reader import FleetReader
from corral.cli.instances import json_option, names_argument
from corral.cli.reach import planned, reach, reach_all
from corral.cli.select import inventory_option
from corral.cli.times import Duration
from corral.cli.views.fleet import fleet_view
from corral.errors import CorralError
from corral.files import write_atomic
from corral.page.alerts import AlertSource
from corral.page.document import FleetPage
from corral.page.html import fleet_html
from corral.page.page_server import PageServer, address_of
from corral.paths import default_rollouts_folder
from corral.project import project_root, templates
from corral.rollout.journal import Journals
from corral.terminal import console, echo

_EVERY_SECONDS = 5
_PAGE = Document(
    "page", TypeAdapter(FleetPage), "corral page", about="The whole fleet at one moment."
)

_alerts_option = click.option(
    "--alerts", metavar="URL",
    help="Prometheus or Alertmanager to ask for alerts, instead of the hosts.",
)  # fmt: skip
_state_option = click.option(
    "--state", "folder", type=click.Path(path_type=Path), default=default_rollouts_folder,
    help="Folder of journals of rollouts.  [default: ~/.local/state/corral/rollouts]",
)  # fmt: skip


@click.command()
@names_argument
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write.")
@json_option
@_alerts_option
@_state_option
@inventory_option
def page(
    names: tuple[str, ...],
    output: Path | None,
    as_json: bool,
    alerts: str | None,
    folder: Path,
    inventory: Path | None,
) -> None:
    """Write the whole fleet as one HTML page that needs nothing else.

    Hosts, GPUs, instances, rollouts, alerts, drift and history. Without names: all hosts of
    inventories/, except examples and labs. Exit code 0: all is well, 2: something is not.
    """
    if output is None and not as_json:
        raise CorralError("corral page", "has no file to write", "add -o fleet.html, or --json")
    found = _reader(names, inventory, alerts, folder).read()
    if as_json:
        _PAGE.show(found)
    if output:
        text = fleet_html(found, templates(project_root()))
        write_atomic(output, text, next_step="choose another file with -o", mode=0o600)
        if not as_json:
            echo(f"{output}: {_summary(found)}")
    sys.exit(0 if found.is_good else 2)


@click.command()
@names_argument
@click.option("--serve", metavar="ADDRESS:PORT", help="Serve the page instead; on loopback.")
@click.option(
    "--exposed", is_flag=True,
    help="Allow an address that others reach; the page has no password.",
)  # fmt: skip
@click.option(
    "--every", "seconds", type=Duration(least_seconds=1), default=_EVERY_SECONDS,
    help=f"Time between two looks.  [default: {_EVERY_SECONDS}s]",
)  # fmt: skip
@_alerts_option
@_state_option
@inventory_option
def watch(
    names: tuple[str, ...],
    serve: str | None,
    exposed: bool,
    seconds: int,
    alerts: str | None,
    folder: Path,
    inventory: Path | None,
) -> None:
    """Show the whole fleet and look again, until interrupted.

    As a table in this terminal, or with --serve as a page for browsers of this machine. Nothing
    can be changed by it.
    """
    terminal = console()
    if serve is None and not terminal.is_terminal:
        step = "run `corral page --json`, or add --serve 127.0.0.1:8090"
        raise CorralError("corral watch", "has no terminal to draw on", step)
    address = address_of(serve, exposed=exposed) if serve else None
    reader = _reader(names, inventory, alerts, folder)
    with suppress(KeyboardInterrupt):
        if address:
            _serve(reader, PageServer(address), seconds)
        with Live(console=terminal, auto_refresh=False, screen=True) as live:
            while True:
                live.update(fleet_view(reader.read()), refresh=True)
                time.sleep(seconds)


def _serve(reader: FleetReader, server: PageServer, seconds: int) -> None:
    root = templates(project_root())
    with server.running():
        echo(f"http://{server.address.text}/ (until interrupted)")
        while True:
            server.show(fleet_html(reader.read(), root, refresh_seconds=seconds))
            time.sleep(seconds)


def _reader(
    names: tuple[str, ...], inventory: Path | None, alerts: str | None, folder: Path
) -> FleetReader:
    source = AlertSource(alerts) if alerts else None
    targets = reach(names, inventory) if names or inventory else reach_all("corral page")
    return FleetReader(targets, planned(targets), Journals(folder), source)


def _summary(page: FleetPage) -> str:
    well = sum(one.is_good for one in page.hosts)
    return (
        f"{well} of {counted(len(page.hosts), 'host')} well, {counted(len(page.alerts), 'alert')}"
    )
