"""The `corral` command."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module

import click

from corral.errors import CorralError
from corral.project import project_root
from corral.terminal import say_error

# Command -> its module; only the one that is asked for is loaded.
_MODULES = {
    "lock": "corral.cli.lock",
    "plan": "corral.cli.plan",
    "fit": "corral.cli.fit",
    "bench": "corral.cli.bench",
    "baseline": "corral.cli.baseline",
    "export": "corral.cli.export",
    "engine": "corral.cli.engine",
    "rollout": "corral.cli.rollout",
    "revert": "corral.cli.revert",
    **dict.fromkeys(("history", "show", "pin", "unpin"), "corral.cli.history"),
    "gateway": "corral.cli.gateway",
    "keys": "corral.cli.keys",
    **dict.fromkeys(("verify", "status", "logs"), "corral.cli.instances"),
    **dict.fromkeys(("start", "stop", "restart"), "corral.cli.services"),
}
_FULL = (errno.ENOSPC, errno.EDQUOT)


class _Lab(click.Group):
    """`corral lab`: its modules are in a checkout only, which is found once it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return _lab().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _lab().get_command(ctx, cmd_name)


def _lab() -> click.Group:
    from lab.cli import lab

    return lab


class _Loaded(click.Group):
    """Commands that are loaded on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*_MODULES, *super().list_commands(ctx)])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MODULES:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(import_module(_MODULES[cmd_name]), cmd_name)
        return command


@click.group(cls=_Loaded)
@click.version_option(package_name="corral")
def cli() -> None:
    """Turn bare GPU hosts into a fleet of LLM servers, and keep it that way.

    Deploy with: pyinfra inventories/prod.py deploy.py
    """
    # Inventories import from the checkout, whether or not Corral is installed.
    root = str(project_root())
    if root not in sys.path:
        sys.path.append(root)


cli.add_command(_Lab(name="lab", help="Disposable hosts on this machine, for rehearsal."))


def main() -> None:
    """Entry point; a CorralError becomes its message and exit code 1."""
    try:
        cli()
    except CorralError as error:
        say_error(error)
        sys.exit(1)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        say_error(_full(error))
        sys.exit(1)


def _full(error: OSError) -> CorralError:
    """Of what is printed into a file: whatever else is written tells it where it is written."""
    where = str(error.filename or "the output of this command")
    if not error.filename:
        # What is left of it would fail once more at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    reason = error.strerror or str(error)
    return CorralError(where, f"cannot be written: {reason}", "make room there, run it again")
