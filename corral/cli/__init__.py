"""The `corral` command."""

from __future__ import annotations

import ast
import errno
import os
import sys
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from corral.errors import CorralError
from corral.project import project_root
from corral.terminal import echo_error

# Section of the help -> command -> its module; only the module of the given command is imported.
_SECTIONS = {
    "Plan": {
        "init": "corral.cli.init",
        "fit": "corral.cli.fit",
        "lock": "corral.cli.lock",
        "plan": "corral.cli.plan",
        "diff": "corral.cli.diff",
        "drift": "corral.cli.drift",
        "keys": "corral.cli.keys",
    },
    "Change": {
        "rollout": "corral.cli.rollout",
        "revert": "corral.cli.revert",
        "remove": "corral.cli.remove",
        **dict.fromkeys(("pin", "unpin"), "corral.cli.history"),
    },
    "Operate": {
        **dict.fromkeys(("status", "verify", "logs"), "corral.cli.instances"),
        **dict.fromkeys(("page", "watch"), "corral.cli.page"),
        **dict.fromkeys(("start", "stop", "restart"), "corral.cli.services"),
        "gateway": "corral.cli.gateway",
        "weights": "corral.cli.weights",
        **dict.fromkeys(("history", "show"), "corral.cli.history"),
    },
    "Measure": {
        "bench": "corral.cli.bench",
        "tune": "corral.cli.tune",
        "baseline": "corral.cli.baseline",
    },
    "Keep": dict.fromkeys(("backup", "restore"), "corral.cli.backup"),
    "Share": {
        "engine": "corral.cli.engine",
        "bundle": "corral.cli.bundle",
        "export": "corral.cli.export",
        "completion": "corral.cli.completion",
    },
}
_MODULES = {name: module for commands in _SECTIONS.values() for name, module in commands.items()}
_OTHERS = "Develop"
# Commands of other packages: entry points of this group (pyproject.toml).
_GROUP = "corral.commands"
# Click answers shells that ask by this variable (corral/cli/completion.py).
COMPLETE = "_CORRAL_COMPLETE"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class _Loaded(click.Group):
    """Commands that are imported on use; the help lists them in sections."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List all commands, section by section."""
        names = self.list_commands(ctx)
        others = [name for name in names if name not in _MODULES]
        limit = formatter.width - 6 - max(map(len, names))
        sections = {title: list(commands) for title, commands in _SECTIONS.items()}
        for title, members in {**sections, _OTHERS: others}.items():
            rows = [(name, self._short_help(ctx, name, limit)) for name in members]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

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
            if cmd_name not in _of_the_checkout():
                return None
            command = point.load()
            return command
        return None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands that begin as typed, with their sentences; click's own would import each."""
        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        commands = [CompletionItem(name, help=self._short_help(ctx, name)) for name in names]
        return [*commands, *click.Command.shell_complete(self, ctx, incomplete)]

    def _short_help(self, ctx: click.Context, name: str, limit: int = 80) -> str:
        if name in _MODULES:
            module, function = _MODULES[name], name
        else:
            point = next(iter(entry_points(group=_GROUP, name=name)))
            module, function = point.module, point.attr
        said = _docstrings(module).get(function)
        # Another package may have its command from elsewhere than a function of this module.
        command = self.get_command(ctx, name) if said is None else click.Command(name, help=said)
        return command.get_short_help_str(limit) if command else ""


@cache
def _docstrings(module: str) -> dict[str, str]:
    """What functions say of themselves, from their source: to import all takes half a second."""
    found = find_spec(module)
    if found is None or found.origin is None:
        return {}
    parts = ast.parse(Path(found.origin).read_text(encoding="utf-8")).body
    functions = [part for part in parts if isinstance(part, ast.FunctionDef)]
    return {one.name: ast.get_docstring(one) or "" for one in functions}


def _of_the_checkout() -> list[str]:
    """Names of commands whose packages are in a checkout only; none outside of a checkout."""
    try:
        import_from_the_checkout()
    except CorralError:
        return []
    points = entry_points(group=_GROUP)
    # A wheel names the lab and does not carry it.
    return [point.name for point in points if find_spec(point.module.partition(".")[0])]


def import_from_the_checkout() -> None:
    """Make packages of the checkout importable, whether or not Corral is installed."""
    root = str(project_root())
    if root not in sys.path:
        sys.path.append(root)


@click.group(cls=_Loaded)
@click.version_option(package_name="corral")
@click.pass_context
def cli(context: click.Context) -> None:
    """Turn bare GPU hosts into a fleet of LLM servers, and keep it that way.

    Deploy with: pyinfra inventories/prod.py deploy.py
    """
    # Inventories import from the checkout; `init` makes what the others need, and a bundle is
    # proved where there is nothing but the bundle.
    if context.invoked_subcommand not in ("init", "bundle"):
        import_from_the_checkout()


def main() -> None:
    """Entry point; a CorralError ends as its message and exit code 1."""
    try:
        _complete()
        cli(prog_name="corral", complete_var=COMPLETE)
    except CorralError as error:
        echo_error(error)
        sys.exit(1)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        echo_error(_full(error))
        sys.exit(1)


def _complete() -> None:
    """Where a shell asks for words: its answers have names of hosts, too."""
    if COMPLETE in os.environ:
        from corral.cli.completion import answer_with_names

        answer_with_names()


def _full(error: OSError) -> CorralError:
    """The error of a full disk while printing; other writes report it themselves."""
    where = str(error.filename or "the output of this command")
    if not error.filename:
        # The rest of the output would fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    reason = error.strerror or str(error)
    step = "free disk space there, then run the same command again"
    return CorralError(where, f"cannot be written: {reason}", step)
