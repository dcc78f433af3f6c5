"""Inventories: pyinfra's own files, read here for their hosts and Corral's keys in host data."""

from __future__ import annotations

import ast
import difflib
import ipaddress
import runpy
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from corral.errors import CorralError
from corral.schema import Frozen, parse


class GpuSpec(Frozen):
    """The GPUs that a host is described to have."""

    name: str
    count: int = Field(gt=0)
    compute_capability: str = Field(pattern=r"^\d+\.\d$", description='such as "8.0" for an A100')


class InstanceSpec(Frozen):
    """One running server: a profile on a port of a host."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,47}$")
    profile: str
    port: int | None = Field(default=None, gt=0, lt=65536, description="unset for a unix socket")
    address: str = Field(default="127.0.0.1", description="address to listen on")
    model: str | None = Field(default=None, description="instead of the profile's")
    quant: str | None = Field(default=None, description="instead of the profile's")
    engine: str | None = Field(default=None, description="instead of the profile's")

    @field_validator("address")
    @classmethod
    def _numeric(cls, address: str) -> str:
        return str(ipaddress.ip_address(address))


class HostSpec(Frozen):
    """Corral's keys in the data of a host."""

    instances: tuple[InstanceSpec, ...] = ()
    gpus: GpuSpec | None = None
    backend: str | None = Field(default=None, pattern="^(cuda|cpu)$")
    hub_url: str = "https://huggingface.co"
    engine_sources: dict[str, str] = Field(default_factory=dict, description="engine -> git URL")
    keys_folder: str | None = Field(default=None, description="on the controller")


class Host(Frozen):
    """A host of an inventory: its name, how to reach it, and what Corral shall put there."""

    name: str
    data: dict[str, Any]
    spec: HostSpec


def parse_host(name: str, data: dict[str, Any], *, origin: str = "the inventory") -> Host:
    """Take Corral's keys out of host data and validate them; ``origin`` names the file.

    Raises CorralError.
    """
    where = f"{origin}: {name}"
    next_step = f"edit {origin}"
    known = set(HostSpec.model_fields)
    for key in set(data) - known:
        _refuse_typo(key, where, next_step)
    own = {key: value for key, value in data.items() if key in known}
    spec = parse(HostSpec, own, where=where, next_step=next_step)
    _refuse_twins(spec, where, next_step)
    return Host(name=name, data=dict(data), spec=spec)


def load_inventory(path: Path) -> list[Host]:
    """Read an inventory file as pyinfra does: groups are top-level lists, or (list, data).

    Data precedence is pyinfra's: host, then group, then ``all`` (group_data/ beside the file or
    in the working folder). Raises CorralError when the file cannot be run or a host is wrong.
    """
    variables = _run(path)
    group_data = _group_data(path)
    merged: dict[str, dict[str, Any]] = {}
    for layer in _layers(variables, group_data, path.stem):
        for host, data in layer:
            merged[host] = {**merged.get(host, {}), **data}
    return [parse_host(host, data, origin=str(path)) for host, data in merged.items()]


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
    found: dict[str, dict[str, Any]] = {}
    for folder in dict.fromkeys([Path("group_data"), path.parent / "group_data"]):
        for file in sorted(folder.glob("*.py")):
            executed, imported = _execute(file), _imported(file)
            values = {
                name: value
                for name, value in executed.items()
                if not name.startswith("__") and name not in imported
            }
            found.setdefault(file.stem, {}).update(values)
    return found


_IMPORTS = (ast.Import, ast.ImportFrom)


def _imported(file: Path) -> set[str]:
    """Names that a file imports; pyinfra keeps them out of host data, and so do we."""
    imports = [n for n in ast.parse(file.read_text()).body if isinstance(n, _IMPORTS)]
    return {a.asname or a.name.split(".")[0] for node in imports for a in node.names}


def _run(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CorralError(str(path), "no such inventory", "name a file of inventories/")
    return {k: v for k, v in _execute(path).items() if not k.startswith("_") and _is_group(v)}


def _execute(path: Path) -> dict[str, Any]:
    """Run a user's file. Whatever it raises is its author's to mend, so everything is caught."""
    try:
        return runpy.run_path(str(path))
    except CorralError:
        raise
    except Exception as error:
        raise CorralError(str(path), f"{type(error).__name__}: {error}", f"edit {path}") from error


def _is_group(value: Any) -> bool:
    members = value[0] if isinstance(value, tuple) and len(value) == 2 else value
    if not isinstance(members, list) or not members:
        return False
    return all(
        isinstance(m, str) or (isinstance(m, tuple) and len(m) == 2 and isinstance(m[0], str))
        for m in members
    )


# Keys that pyinfra's connectors read begin so; other keys are the user's own business.
_FOREIGN_PREFIXES = ("ssh_", "_", "docker_", "winrm_")


def _refuse_typo(key: str, where: str, next_step: str) -> None:
    if key.startswith(_FOREIGN_PREFIXES):
        return
    close = difflib.get_close_matches(key, HostSpec.model_fields, n=1, cutoff=0.8)
    if close:
        raise CorralError(where, f'unknown key "{key}" (did you mean "{close[0]}"?)', next_step)


def _refuse_twins(spec: HostSpec, where: str, next_step: str) -> None:
    names: set[str] = set()
    ports: dict[int, str] = {}
    for instance in spec.instances:
        if instance.name in names:
            raise CorralError(where, f'two instances are called "{instance.name}"', next_step)
        names.add(instance.name)
        if instance.port is None:
            continue
        if instance.port in ports:
            pair = f'"{ports[instance.port]}" and "{instance.name}"'
            raise CorralError(where, f"instances {pair} share port {instance.port}", next_step)
        ports[instance.port] = instance.name
