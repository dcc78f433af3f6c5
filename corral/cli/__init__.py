"""The `corral` command."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module
from importlib.metadata import entry_points

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
# Commands of other packages: entry points of this group (pyproject.toml).
_GROUP = "corral.commands"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class _Loaded(click.Group):
    """Commands that are loaded on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click gives it)
        return sorted([*_MODULES, *_of_the_checkout()])

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002  (click gives it)
        cmd_name: str,
    ) -> click.Command | None:
        command: click.Command
        if cmd_name in _MODULES:
            command = getattr(import_module(_MODULES[cmd_name]), cmd_name)
            return command
        for point in entry_points(group=_GROUP, name=cmd_name):
            _import_from_the_checkout()
            command = point.load()
            return command
        return None


def _of_the_checkout() -> list[str]:
    """Names of commands whose packages are in a checkout only; none outside of one."""
    try:
        _import_from_the_checkout()
    except CorralError:
        return []
    return [point.name for point in entry_points(group=_GROUP)]


def _import_from_the_checkout() -> None:
    """Let packages of the checkout be found, whether or not Corral is installed."""
    root = str(project_root())
    if root not in sys.path:
        sys.path.append(root)


@click.group(cls=_Loaded)
@click.version_option(package_name="corral")
def cli() -> None:
    """Turn bare GPU hosts into a fleet of LLM servers, and keep it that way.

    Deploy with: pyinfra inventories/prod.py deploy.py
    """
    # Inventories do.
    _import_from_the_checkout()


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
