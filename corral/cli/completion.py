"""`corral completion`: words that a shell offers; names come from inventories, no host is asked."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    add_completion_class,
)

from corral.cli.select import inventories
from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.terminal import echo_file

_SHELLS: tuple[type[ShellComplete], ...] = (BashComplete, ZshComplete, FishComplete)
_KINDS = ("HOST", "INSTANCE", "HOST/INSTANCE")


class _Names(click.ParamType[str]):
    """A name of the inventories; + kinds: those of _KINDS that the parameter takes."""

    name = "name"

    def __init__(self, kinds: frozenset[str]) -> None:
        self._kinds = kinds

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 (click gives it)
        incomplete: str,
    ) -> list[CompletionItem]:
        """Names that begin as typed; none where an inventory cannot be read."""
        known = dict.fromkeys(name for host in _hosts(ctx) for name in self._of(host))
        return [CompletionItem(name) for name in known if name.startswith(incomplete)]

    def _of(self, host: Host) -> list[str]:
        own = host.instance_names
        return [
            *([host.name] if "HOST" in self._kinds else ()),
            *(own if "INSTANCE" in self._kinds else ()),
            *([f"{host.name}/{one}" for one in own] if "HOST/INSTANCE" in self._kinds else ()),
        ]


@click.command()
@click.argument("shell", type=click.Choice([one.name for one in _SHELLS]))
def completion(shell: str) -> None:
    """Print what makes a shell complete commands, options, hosts and instances.

    For bash: corral completion bash > ~/.local/share/bash-completion/completions/corral.
    For zsh: into a file _corral of $fpath. For fish: into ~/.config/fish/completions/corral.fish.
    """
    from corral.cli import COMPLETE, cli

    (found,) = (one for one in _SHELLS if one.name == shell)
    echo_file(f"{found(cli, {}, 'corral', COMPLETE).source().strip()}\n")


def answer_with_names() -> None:
    """Let what shells ask for have names of hosts and instances."""
    for shell in _SHELLS:
        add_completion_class(_with_names(shell), shell.name)


def _with_names(shell: type[ShellComplete]) -> type[ShellComplete]:
    def get_completions(self: Any, args: list[str], incomplete: str) -> list[CompletionItem]:
        _name_parameters(self.cli, args)
        return shell.get_completions(self, args, incomplete)

    return type(shell.__name__, (shell,), {"get_completions": get_completions})


def _name_parameters(command: click.Command, words: list[str]) -> None:
    """Give parameters of the command in ``words`` that take names a type that knows them."""
    for word in words:
        if isinstance(command, click.Group):
            command = command.get_command(click.Context(command), word) or command
    for parameter in command.params:
        if kinds := _kinds(parameter):
            parameter.type = _Names(kinds)


def _kinds(parameter: click.Parameter) -> frozenset[str]:
    """By its metavar, as the help shows it: `HOST|INSTANCE|HOST/INSTANCE`."""
    if isinstance(parameter.type, (click.Path, click.Choice)):
        return frozenset()
    shown = parameter.metavar or (parameter.name or "").upper()
    return frozenset(re.split(r"[^A-Z/]+", shown)).intersection(_KINDS)


def _hosts(context: click.Context) -> list[Host]:
    from corral.cli import import_from_the_checkout

    chosen = context.params.get("inventory")
    quiet = io.StringIO()
    # What an inventory prints would be offered as a word.
    with redirect_stdout(quiet), redirect_stderr(quiet):
        try:
            import_from_the_checkout()
            return inventories(chosen if isinstance(chosen, Path) else None).hosts
        except CorralError:
            return []
