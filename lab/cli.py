"""`corral lab`: up, down and list."""

from __future__ import annotations

import shlex
import sys

import click
from rich.console import Console
from rich.table import Table

from corral.errors import CorralError
from lab import hosts, lifecycle, requirements, ssh
from lab.descriptions import host_spec
from lab.layout import MAX_HOSTS, Layout, this_lab
from lab.platforms import DEFAULT, PLATFORMS

_ANY_WIDTH = 1000


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
def list_hosts() -> None:
    """Show the lab's hosts."""
    layout = this_lab()
    numbers = hosts.recorded(layout)
    if not numbers:
        click.echo("no lab is up: `corral lab up`")
        return
    table = _table(layout, numbers)
    # As wide as the table needs, so that a narrow terminal does not break the ssh commands.
    width = Console(width=_ANY_WIDTH).measure(table).maximum
    Console(width=width).print(table)


def _table(layout: Layout, numbers: list[int]) -> Table:
    table = Table("host", "address", "state", "platform", "gpus", "ssh")
    for n in numbers:
        table.add_row(
            layout.host_name(n),
            str(layout.address(n)),
            "running" if hosts.running(layout, n) else "off",
            hosts.platform(layout, n),
            ", ".join(gpu.name for gpu in host_spec(n).gpus) or "-",
            shlex.join(ssh.command(layout, n)),
        )
    return table
