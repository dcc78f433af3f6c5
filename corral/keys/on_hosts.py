"""Keys on hosts: their names and, for a store that lost them, the keys themselves.

They come over ssh(1); no argument, message or log contains a key.
"""

from __future__ import annotations

import json

from pydantic import Field, TypeAdapter

from corral.host.answers import HostAnswer
from corral.host.state import HostState
from corral.inventory.hosts import Host
from corral.paths import HOST_PATHS, unit_name
from corral.remote.client import travelling_helper
from corral.store.api_keys import keys_in


class HeldKeys(HostAnswer):
    """Name -> text of the key files of a host. Never print it."""

    instances: dict[str, str] = Field(default={}, repr=False)
    gateway: dict[str, str] = Field(default={}, repr=False)

    def __repr__(self) -> str:
        return "HeldKeys()"

    __str__ = __repr__


class _Names(HostAnswer):
    names: frozenset[str]


_NAMES = TypeAdapter(_Names)
_KEYS = TypeAdapter(HeldKeys)


def names_in(state: HostState) -> frozenset[str]:
    """Names of the keys of a host, from its state."""
    own = {name for name, found in state.instances.items() if found.has_keys}
    return frozenset(own | set(state.gateway.keys if state.gateway else ()))


def held_names(host: Host) -> frozenset[str]:
    """Names of the keys of a host, from the host. Raises CorralError."""
    return travelling_helper(host).ask(["held-keys"], _NAMES, _document(host)).names


def held_keys(host: Host) -> HeldKeys:
    """All keys of a host, from the host. Raises CorralError."""
    return travelling_helper(host).ask(["keys"], _KEYS, _document(host), secret=True)


def own_keys(text: str, of_gateways: list[str]) -> list[str]:
    """The keys of an instance without those of gateways."""
    return [key for key in keys_in(text) if key not in of_gateways]


def _document(host: Host) -> str:
    instances = [
        {
            "name": name, "unit": unit_name(name),
            "unit_path": HOST_PATHS.unit_file(name),
            "key_path": HOST_PATHS.key_file(name),
        }
        for name in host.instance_names
    ]  # fmt: skip
    return json.dumps({"instances": instances, "gateway": HOST_PATHS.gateway})
