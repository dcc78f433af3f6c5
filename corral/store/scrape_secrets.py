"""Secrets of a host's Prometheus and Alertmanager, from the key store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.plan.monitoring import MonitoringPlan
from corral.store.alert_secrets import ALERTS, alert_secret
from corral.store.api_keys import stored_keys


def secret_texts(plan: MonitoringPlan | None, hosts: Sequence[Host]) -> dict[str, str]:
    """Path on the host -> secret, without a line end: they are sent as they are.

    + hosts: all of the inventory. Raises CorralError, LostKeysError where the store lacks one.
    """
    by_name = {host.name: host for host in hosts}
    return {path: _text(name, by_name) for path, name in (plan.secrets if plan else {}).items()}


def changed_secrets(texts: Mapping[str, str], on_host: Mapping[str, str | None]) -> tuple[str, ...]:
    """Paths whose secret the host lacks; ``on_host``: path -> sha256."""
    digests = {path: hashlib.sha256(text.encode()).hexdigest() for path, text in texts.items()}
    return tuple(path for path, digest in digests.items() if on_host.get(path) != digest)


def _text(name: str, hosts: Mapping[str, Host]) -> str:
    host_name, _, key = name.rpartition("/")
    host = hosts.get(host_name)
    if host is None:
        raise CorralError(name, "is of no host of this inventory", "see inventories/")
    return alert_secret(host, key) if key.startswith(ALERTS) else stored_keys(host, key).first
