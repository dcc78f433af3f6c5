"""Names of what the key store has of a host, as they are typed."""

from __future__ import annotations

from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.store.alert_secrets import ALERTS, alert_step
from corral.store.gateway_keys import CLIENTS, GRAFANA, METRICS, SCRAPE, UPSTREAM


def is_known(host: Host, name: str) -> bool:
    """Whether a host may have a secret of this name; its data may have mistakes."""
    return _has_keys(host, name) or _is_password(host, name) or is_alert_secret(host, name)


def known_names(host: Host) -> list[str]:
    """Names of secrets that a host may have, as they are typed; none of an alias or a receiver."""
    of_monitoring = [SCRAPE, GRAFANA] if "monitoring" in host.data else []
    of_gateway = [METRICS] if host.data.get("gateway") else []
    return [f"{host.name}/{n}" for n in (*host.instance_names, *of_monitoring, *of_gateway)]


def _has_keys(host: Host, name: str) -> bool:
    of_gateway = name.startswith((CLIENTS, UPSTREAM)) or name == METRICS
    own = name in host.instance_names or (name == SCRAPE and "monitoring" in host.data)
    return own or (of_gateway and bool(host.data.get("gateway")))


def _is_password(host: Host, name: str) -> bool:
    """Whether it is the password of the host's Grafana, which accepts one."""
    return name == GRAFANA and "monitoring" in host.data


def is_alert_secret(host: Host, name: str) -> bool:
    """Whether it is a secret of a receiver of alerts, which others make."""
    return name.startswith(ALERTS) and "monitoring" in host.data


def refuse_unmade(host: Host, name: str) -> None:
    """Raise CorralError for a secret that Corral cannot make."""
    if is_alert_secret(host, name):
        what = "is a secret that its receiver of alerts gave out"
        raise CorralError(f"{host.name}/{name}", what, alert_step(host, name))


def refuse_single(host: Host, name: str) -> None:
    """Raise CorralError for a secret of which there are never two."""
    refuse_unmade(host, name)
    if _is_password(host, name):
        what = "is a password, of which Grafana accepts one"
        step = f"`corral keys new {host.name}/{name} --replace`, then deploy {host.name}"
        raise CorralError(f"{host.name}/{name}", what, step)
