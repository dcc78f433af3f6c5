"""Secrets of a gateway on the controller: keys of clients, its own keys, its certificate."""

from __future__ import annotations

from pathlib import Path

from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.plan.gateway import GatewayPlan, Pool
from corral.store.api_keys import KeyFile, stored_keys

# Names of a gateway's keys in the store: of an alias's clients, its own for an alias, of metrics.
CLIENTS, UPSTREAM, METRICS = "gateway-", "upstream-", "gateway_metrics"
# The key of a host's instances for a Prometheus; no instance can have this name.
SCRAPE = "scrape_metrics"
# The password of the administrator of a host's Grafana.
GRAFANA = "grafana_admin"


def client_name(pool: Pool) -> str:
    """Name of the keys of an alias's clients in the store."""
    return f"{CLIENTS}{pool.name}"


def upstream_name(pool: Pool) -> str:
    """Name of the gateway's own keys for the instances of an alias."""
    return f"{UPSTREAM}{pool.name}"


def names(plan: GatewayPlan) -> list[str]:
    """Names of all keys of a gateway."""
    own = [name(pool) for pool in plan.pools for name in (client_name, upstream_name)]
    return [*own, METRICS] if plan.metrics_port else own


def client_keys(gateway: Host, pool: Pool) -> KeyFile:
    """The keys that clients of an alias may use. Raises CorralError."""
    return stored_keys(gateway, client_name(pool))


def metrics_keys(gateway: Host) -> KeyFile:
    """The keys for the gateway's metrics. Raises CorralError."""
    return stored_keys(gateway, METRICS)


def upstream_keys(gateway: Host, pool: Pool) -> KeyFile:
    """The gateway's keys for the instances of an alias: it sends the first, they accept all.

    Raises CorralError.
    """
    return stored_keys(gateway, upstream_name(pool))


def certificate(gateway: Host) -> str | None:
    """The PEM file that the inventory names, with its private key. Raises CorralError."""
    spec = gateway.spec.gateway
    if spec is None or spec.tls_certificate is None:
        return None
    path = Path(spec.tls_certificate).expanduser()
    where = f"{gateway.name}: gateway, tls_certificate {path}"
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise CorralError(where, f"not readable: {error}", "name a PEM file") from error
    for part in ("CERTIFICATE", "PRIVATE KEY"):
        if f"{part}-----" not in text:
            raise CorralError(where, f"contains no {part}", "put chain and key into one PEM file")
    return text
