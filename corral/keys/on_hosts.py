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
from corral.planning.grafana import PASSWORD
from corral.planning.prometheus import ALERTMANAGER, PROMETHEUS
from corral.remote.client import travelling_helper
from corral.store.alert_secrets import secret_name
from corral.store.api_keys import keys_in
from corral.store.gateway_keys import GRAFANA


class _Secret(HostAnswer):
    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    __str__ = __repr__


class HeldSecrets(_Secret):
    """Secrets of a host's monitoring, by the names of their files. Never print it.

    + alerts: receiver -> its secret; + scrape: job of its Prometheus -> key
    """

    alerts: dict[str, str] = Field(default={}, repr=False)
    scrape: dict[str, str] = Field(default={}, repr=False)
    grafana: dict[str, str] = Field(default={}, repr=False)


class HeldKeys(_Secret):
    """Name -> text of the key files of a host. Never print it."""

    instances: dict[str, str] = Field(default={}, repr=False)
    gateway: dict[str, str] = Field(default={}, repr=False)
    monitoring: HeldSecrets = Field(default=HeldSecrets(), repr=False)

    @property
    def alert_secrets(self) -> dict[str, str]:
        """Name in the store -> secret of a receiver of alerts."""
        return {secret_name(name): text for name, text in self.monitoring.alerts.items()}

    @property
    def passwords(self) -> dict[str, str]:
        """Name in the store -> password of Grafana's administrator, if there is one."""
        password = self.monitoring.grafana.get(PASSWORD)
        return {GRAFANA: password} if password else {}


class _Names(HostAnswer):
    names: frozenset[str]


_NAMES = TypeAdapter(_Names)
_KEYS = TypeAdapter(HeldKeys)


def names_in(state: HostState) -> frozenset[str]:
    """Names of the keys of a host, from its state."""
    own = {name for name, found in state.instances.items() if found.has_keys}
    password = state.monitoring.secrets.get(f"{HOST_PATHS.grafana_secrets}/{PASSWORD}")
    own |= {GRAFANA} if password else set()
    return frozenset(own | set(state.gateway.keys if state.gateway else ()))


def held_names(host: Host) -> frozenset[str]:
    """Names of the keys of a host, from the host. Raises CorralError."""
    return travelling_helper(host).ask(["held-keys"], _NAMES, _document(host)).names


def held_keys(host: Host) -> HeldKeys:
    """All keys of a host, from the host. Raises CorralError."""
    return travelling_helper(host).ask(["keys"], _KEYS, _document(host), secret=True)


def own_keys(text: str, of_others: list[str]) -> list[str]:
    """The keys of an instance without those of gateways and of the monitoring."""
    return [key for key in keys_in(text) if key not in of_others]


def _document(host: Host) -> str:
    instances = [
        {
            "name": name, "unit": unit_name(name),
            "unit_path": HOST_PATHS.unit_file(name),
            "key_path": HOST_PATHS.key_file(name),
        }
        for name in host.instance_names
    ]  # fmt: skip
    folders = {
        "alerts": HOST_PATHS.prometheus_secrets(ALERTMANAGER),
        "scrape": HOST_PATHS.prometheus_secrets(PROMETHEUS),
        "grafana": HOST_PATHS.grafana_secrets,
    }
    return json.dumps(
        {"instances": instances, "gateway": HOST_PATHS.gateway, "monitoring": folders}
    )
