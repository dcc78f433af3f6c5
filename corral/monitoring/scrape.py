"""What a Prometheus scrapes of a fleet, and what it cannot reach. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from corral.catalog.entries import EngineKind
from corral.inventory.hosts import Host
from corral.plan.gateway import GatewayPlan, at
from corral.plan.host import HostPlan
from corral.plan.instance import InstancePlan
from corral.schema import Frozen
from corral.store.gateway_keys import METRICS, SCRAPE

# Of node_exporter, which has no keys.
HOSTS = "corral-hosts"


class Target(Frozen):
    """One address with its labels; ``key``: name of its key in the store of ``host``, or none.

    + job: targets of one job have one key
    """

    job: str
    host: str
    address: str
    labels: dict[str, str]
    key: str | None = None
    scheme: str = "http"


class LeftOut(Frozen):
    """What a Prometheus cannot scrape: HOST or HOST/INSTANCE, why, and what would change it."""

    name: str
    why: str
    next_step: str


def targets(host: Host, plan: HostPlan) -> Iterator[Target | LeftOut]:
    """Everything of one host that has metrics."""
    if plan.monitoring is None:
        step = f'add "monitoring": {{}} to the data of {host.name}, then deploy'
        yield LeftOut(name=host.name, why="is not monitored", next_step=step)
    else:
        yield _exporter(host, plan.monitoring.address, plan.monitoring.port)
        for instance in plan.instances:
            yield _server(host, instance)
    if plan.gateway and plan.gateway.metrics_port:
        yield _gateway(host, plan.gateway, plan.gateway.metrics_port)


def _exporter(host: Host, address: str, port: int) -> Target | LeftOut:
    reached = _reached(host, address)
    if reached is None:
        return LeftOut(
            name=host.name,
            why=f"its node_exporter listens on {address}",
            next_step='name an "address" of a trusted network in its "monitoring", then deploy',
        )
    labels = {"host": host.name}
    return Target(job=HOSTS, host=host.name, address=at(reached, port), labels=labels)


def _server(host: Host, instance: InstancePlan) -> Target | LeftOut:
    name, end = f"{host.name}/{instance.name}", instance.endpoint
    if not instance.metrics:
        step = "set metrics = true in its profile, then deploy"
        return LeftOut(name=name, why="its profile has no metrics", next_step=step)
    reached = _reached(host, end.address) if end.address and end.port else None
    if reached is None or end.port is None:
        return LeftOut(
            name=name,
            why=f"listens on {end.url}",
            next_step='give it an "address" on the network; its host reports its state anyhow',
        )
    if instance.clients is not None:
        return LeftOut(
            name=name,
            why=f"lets in {', '.join(instance.clients)} alone: a key does not guard all routes",
            next_step="scrape it on its host or a gateway; its host reports its state anyhow",
        )
    return Target(
        job=f"corral-servers-{host.name}",
        host=host.name,
        address=at(reached, end.port),
        labels={**_labels(host.name, instance.name, instance.kind), "alias": instance.alias},
        key=SCRAPE,
    )


def _labels(host: str, instance: str, engine: EngineKind) -> dict[str, str]:
    return {"host": host, "instance": instance, "engine": engine}


def _gateway(host: Host, plan: GatewayPlan, port: int) -> Target | LeftOut:
    reached = _reached(host, plan.address)
    if reached is None:
        return LeftOut(
            name=f"{host.name} (gateway)",
            why=f"listens on {plan.address}",
            next_step='name another "address" in its "gateway", then deploy',
        )
    return Target(
        job=f"corral-gateway-{host.name}",
        host=host.name,
        address=at(reached, port),
        labels={"host": host.name, "instance": "gateway", "engine": "haproxy"},
        key=METRICS,
        scheme="https" if plan.tls else "http",
    )


def _reached(host: Host, address: str) -> str | None:
    """The address for another host; None for loopback."""
    listens = ipaddress.ip_address(address)
    if listens.is_loopback:
        return None
    if listens.is_unspecified:
        return host.spec.member_address or str(host.data.get("ssh_hostname") or host.name)
    return address
