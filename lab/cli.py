"""`corral lab`: up, down and list."""

from __future__ import annotations

import shlex
import sys
from typing import Literal

import click
from rich.console import Console
from rich.table import Table

from corral.cli.documents import Document, rows_of
from corral.errors import CorralError
from corral.schema import Frozen
from lab import hosts, lifecycle, requirements, ssh
from lab.descriptions import host_spec
from lab.layout import MAX_HOSTS, Layout, this_lab
from lab.platforms import DEFAULT, PLATFORMS

_ANY_WIDTH = 1000


class LabHost(Frozen):
    """A host of the lab; ``ssh``: the command that reaches it."""

    host: str
    address: str
    state: Literal["running", "off"]
    platform: str
    gpus: tuple[str, ...]
    ssh: str


_LISTED = Document(
    "lab-list", rows_of(LabHost), "corral lab list", about="The hosts of this checkout's lab."
)


@click.group()
def lab() -> None:
    """Disposable real hosts on this machine, for rehearsal and tests."""


@lab.command()
@click.option(
    "--hosts", "count", type=click.IntRange(1, MAX_HOSTS), default=3, show_default=True,
    help="At least this many; running hosts stay.",
)  # fmt: skip
@click.option("--gateway", is_flag=True, help="Add one more host, a gateway in front of them.")
@click.option("--provisioned", is_flag=True, help="Install the packages of a deploy beforehand.")
@click.option(
    "--platform", type=click.Choice(list(PLATFORMS)), default=DEFAULT, show_default=True,
    help="Distribution of new hosts; others keep theirs.",
)  # fmt: skip
def up(count: int, gateway: bool, provisioned: bool, platform: str) -> None:
    """Make and boot hosts, their network, a stand-in hub and the engine's source."""
    lifecycle.up(
        this_lab(), count, click.echo,
        gateway=gateway, provisioned=provisioned, platform=platform,
    )  # fmt: skip


@lab.command()
def down() -> None:
    """Remove the lab: hosts, network, keys. Caches stay."""
    lifecycle.down(this_lab(), click.echo)


@lab.command()
def check() -> None:
    """Say in one line why this machine cannot host a lab; silent if it can."""
    try:
        requirements.require()
    except CorralError as error:
        click.echo(f"{error.where} {error.what}. Next: {error.next_step}", err=True)
        sys.exit(1)


@lab.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_hosts(as_json: bool) -> None:
    """Show the lab's hosts."""
    layout = this_lab()
    rows = [_row(layout, n) for n in hosts.recorded(layout)]
    if as_json:
        _LISTED.show(rows)
        return
    if not rows:
        click.echo("no lab is up: `corral lab up`")
        return
    table = Table("host", "address", "state", "platform", "gpus", "ssh")
    for row in rows:
        gpus = ", ".join(row.gpus) or "-"
        table.add_row(row.host, row.address, row.state, row.platform, gpus, row.ssh)
    # As wide as the table needs, so that a narrow terminal does not break the ssh commands.
    width = Console(width=_ANY_WIDTH).measure(table).maximum
    Console(width=width).print(table)


def _row(layout: Layout, n: int) -> LabHost:
    return LabHost(
        host=layout.host_name(n),
        address=str(layout.address(n)),
        state="running" if hosts.running(layout, n) else "off",
        platform=hosts.platform(layout, n),
        gpus=tuple(gpu.name for gpu in host_spec(n).gpus),
        ssh=shlex.join(ssh.command(layout, n)),
    )
