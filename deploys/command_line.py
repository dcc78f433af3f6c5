"""The command line of a deploy: what pyinfra 3.10 would do nothing about, and end with 0."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import click
from corral_shared.text import printable
from pyinfra.api import Inventory
from pyinfra.api.exceptions import NoGroupError, PyinfraError
from pyinfra_cli import cli  # type: ignore[import-untyped]
from pyinfra_cli.inventory import make_inventory  # type: ignore[import-untyped]

from corral.errors import CorralError
from corral.inventory.pyinfra_files import host_data
from corral.project import project_root
from corral.schema import did_you_mean

# With these nobody is asked.
_UNASKED = ("yes", "dry", "json_output", "debug_facts", "debug_operations")


def refuse_mistakes() -> None:
    """Raises PyinfraError for an inventory or a host that is not there, or nobody to ask."""
    context = click.get_current_context(silent=True)
    if context is None:
        return
    if not sys.stdin.isatty():
        # Also asked for when a host fails, by any command: input() would raise EOFError.
        cli._do_confirm = _cannot_ask
    try:
        _refuse(context.params)
    except CorralError as error:
        raise PyinfraError(printable(error)) from error


def _refuse(given: Mapping[str, Any]) -> None:
    name, deploys = str(given["inventory"]), str(given["operations"][0]).endswith(".py")
    inventory = _inventory(name, given)
    known = {host.name for host in inventory}
    for option in ("limit", "exclude"):
        for pattern in given[option] or ():
            if not _matching(inventory, pattern):
                what = f"--{option} {pattern}: no such host or group{did_you_mean(pattern, known)}"
                raise CorralError(name, what, "name hosts of this inventory")
    if not set(_chosen(inventory, given)):
        raise CorralError(name, "no host is left of it", "name one that is not excluded")
    if deploys and not any(given[key] for key in _UNASKED) and not sys.stdin.isatty():
        step = f"look with --dry, then `pyinfra {name} {given['operations'][0]} -y`"
        raise CorralError("pyinfra", "there is no terminal to ask on", step)


def _cannot_ask(question: str) -> bool:
    raise PyinfraError(
        f"there is no terminal to ask on: {question}\n  Next: see what is said above; -y goes on"
    )


def _inventory(name: str, given: Mapping[str, Any]) -> Inventory:
    """As pyinfra will make it in a moment. Raises CorralError where that would be a traceback."""
    file = Path(name)
    if file.is_dir():
        raise CorralError(name, "is a folder", "name a file of inventories/")
    if file.is_file():
        host_data(file)
    data = dict(pair.split("=", 1) for pair in given["data"] or () if "=" in pair)
    path = str(project_root())
    folders = given["group_data"] or None
    inventory: Inventory = make_inventory(
        name, cwd=path, override_data=data, group_data_directories=folders
    )
    if not len(inventory):
        files = sorted((project_root() / "inventories").glob("*.py"))
        names = {str(file.relative_to(project_root())) for file in files}
        raise CorralError(name, f"no such inventory, or none with hosts{did_you_mean(name, names)}",
                          "name a file of inventories/")  # fmt: skip
    return inventory


def _chosen(inventory: Inventory, given: Mapping[str, Any]) -> Iterator[str]:
    """Hosts that are left."""
    patterns = given["limit"] or ("*",)
    excluded = {name for one in given["exclude"] or () for name in _matching(inventory, one)}
    for pattern in patterns:
        yield from _matching(inventory, pattern) - excluded


def _matching(inventory: Inventory, pattern: str) -> set[str]:
    """As pyinfra_cli.cli matches: the name of a group, else a pattern over names of hosts."""
    try:
        return {host.name for host in inventory.get_group(pattern)}
    except NoGroupError:
        return {host.name for host in inventory if fnmatch(host.name, pattern)}
