"""Inventory files, read as pyinfra does: hosts and their data."""

from __future__ import annotations

import ast
import runpy
from pathlib import Path
from typing import Any

from corral.errors import CorralError


def host_data(path: Path) -> dict[str, dict[str, Any]]:
    """The data of each host of an inventory file, merged.

    Groups are top-level lists, or (list, data). Precedence is pyinfra's: host, then group, then
    ``all`` (group_data/ beside the file or in the working folder). Raises CorralError when the
    file cannot be run.
    """
    variables = _run(path)
    group_data = _group_data(path)
    merged: dict[str, dict[str, Any]] = {}
    for layer in _layers(variables, group_data, path.stem):
        for host, data in layer:
            if not isinstance(data, dict):
                what = f"the data of {host} must be a dictionary, not {type(data).__name__}"
                raise CorralError(str(path), what, f"edit {path}")
            merged[host] = {**merged.get(host, {}), **data}
    return merged


Layer = list[tuple[str, dict[str, Any]]]


def _layers(
    variables: dict[str, Any], group_data: dict[str, dict[str, Any]], stem: str
) -> list[Layer]:
    """Pairs of host and data, weakest first, as pyinfra_cli.inventory (3.10) ranks them: ``all``,
    the groups in their order, the group named after the file, the hosts' own.
    """
    groups = {name: _split(value) for name, value in variables.items()}
    own = [pair for members, _ in groups.values() for pair in members]
    names = list(dict.fromkeys(host for host, _ in own))
    everyone, inline = groups.pop("all", ([(name, {}) for name in names], {}))
    groups.setdefault(stem, (everyone, {}))
    layers: list[Layer] = [[(host, {**inline, **group_data.get("all", {})}) for host in names]]
    for group, (members, data) in groups.items():
        layers.append([(host, {**data, **group_data.get(group, {})}) for host, _ in members])
    return [*layers, own]


def _split(group: Any) -> tuple[Layer, dict[str, Any]]:
    members, data = group if isinstance(group, tuple) else (group, {})
    return [m if isinstance(m, tuple) else (m, {}) for m in members], data


def _group_data(path: Path) -> dict[str, dict[str, Any]]:
    groups: dict[str, dict[str, Any]] = {}
    for folder in dict.fromkeys([Path("group_data"), path.parent / "group_data"]):
        for file in sorted(folder.glob("*.py")):
            executed, imported = _execute(file), _imported(file)
            values = {
                name: value
                for name, value in executed.items()
                if not name.startswith("__") and name not in imported
            }
            groups.setdefault(file.stem, {}).update(values)
    return groups


_IMPORTS = (ast.Import, ast.ImportFrom)


def _imported(file: Path) -> set[str]:
    """Names that a file imports; pyinfra keeps them out of host data, and so do we."""
    imports = [n for n in ast.parse(file.read_text()).body if isinstance(n, _IMPORTS)]
    return {a.asname or a.name.split(".")[0] for node in imports for a in node.names}


def _run(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CorralError(str(path), "no such inventory", "name a file of inventories/")
    groups = {k: v for k, v in _execute(path).items() if not k.startswith("_") and _is_group(v)}
    for name, value in groups.items():
        if isinstance(value, tuple) and not isinstance(value[1], dict):
            what = f"the data of group {name} must be a dictionary, not {type(value[1]).__name__}"
            raise CorralError(str(path), what, f"edit {path}")
    return groups


def _execute(path: Path) -> dict[str, Any]:
    """Run a user's file. Catches everything it raises: the user must fix that file."""
    try:
        return runpy.run_path(str(path))
    except CorralError:
        raise
    except (Exception, SystemExit) as error:
        raise CorralError(str(path), f"{type(error).__name__}: {error}", f"edit {path}") from error


def _is_group(value: Any) -> bool:
    members = value[0] if isinstance(value, tuple) and len(value) == 2 else value
    if not isinstance(members, list) or not members:
        return False
    return all(
        isinstance(m, str) or (isinstance(m, tuple) and len(m) == 2 and isinstance(m[0], str))
        for m in members
    )
