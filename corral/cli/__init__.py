"""The `corral` command."""

from __future__ import annotations

import sys

import click

from corral.cli.bench import bench
from corral.cli.engine import engine
from corral.cli.export import export
from corral.cli.fit import fit
from corral.cli.instances import logs, restart, start, status, stop, verify
from corral.cli.lock import lock
from corral.cli.plan import plan
from corral.errors import CorralError
from corral.project import project_root


class LazyLab(click.Group):
    """`corral lab`, loaded on use: the lab's modules are for machines that host one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return _lab().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _lab().get_command(ctx, cmd_name)


def _lab() -> click.Group:
    from lab.cli import lab

    return lab


@click.group()
@click.version_option(package_name="corral")
def cli() -> None:
    """Turn bare GPU hosts into a fleet of LLM servers, and keep it that way.

    Deploy with: pyinfra inventories/prod.py deploy.py
    """
    # Inventories import from the checkout, whether or not Corral is installed.
    root = str(project_root())
    if root not in sys.path:
        sys.path.append(root)


cli.add_command(lock)
cli.add_command(plan)
cli.add_command(fit)
cli.add_command(export)
cli.add_command(engine)
cli.add_command(bench)
for _command in (verify, status, start, stop, restart, logs):
    cli.add_command(_command)
cli.add_command(LazyLab(name="lab", help="Disposable hosts on this machine, for rehearsal."))


def main() -> None:
    """Entry point; a CorralError becomes its message and exit code 1."""
    try:
        cli()
    except CorralError as error:
        click.secho(str(error), err=True, fg="red" if sys.stderr.isatty() else None)
        sys.exit(1)
