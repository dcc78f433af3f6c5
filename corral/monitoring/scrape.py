"""What a Prometheus scrapes of a fleet, and what it cannot reach. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from functools import partial

from corral.catalog.entries import EngineKind
from corral.inventory.hosts import Host
from corral.inventory.monitoring import MonitoringSpec
from corral.plan.gateway import GatewayPlan, at
from corral.plan.instance import Endpoint
from corral.schema import Frozen
from corral.store.gateway_keys import METRICS, SCRAPE

# Of node_exporter, which has no keys.
HOSTS = "corral-hosts"
# Address that a program listens on -> the one to connect to, or None.
Reach = Callable[[str], str | None]


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


class Server(Frozen):
    """An instance as far as scraping it goes.

    + end: where it listens; + has_metrics: its profile has them
    + keyless: it answers some routes without a key, so that its gateways alone may connect
    """

    name: str
    kind: EngineKind
    alias: str
    end: Endpoint
    has_metrics: bool
    keyless: bool


class Scraped(Frozen):
    """A host as far as scraping it goes: its servers, and its gateway."""

    servers: tuple[Server, ...] = ()
    gateway: GatewayPlan | None = None


def targets(host: Host, scraped: Scraped, *, by: str = "") -> Iterator[Target | LeftOut]:
    """Everything of one host that has metrics; ``by``: the host that asks, which is another if not
    named."""
    is_here = host.name == by
    reach = partial(_reached, host, is_here=is_here)
    spec, gateway = host.spec.monitoring, scraped.gateway
    if spec is None:
        step = f'add "monitoring": {{}} to the data of {host.name}, then deploy'
        yield LeftOut(name=host.name, why="is not monitored", next_step=step)
    else:
        yield _exporter(host, spec, reach)
        for server in scraped.servers:
            # Its unit lets in the host itself, too.
            is_shut = server.keyless and not is_here
            yield _server(host, server, reach, is_shut=is_shut)
    if gateway and gateway.metrics_port:
        yield _gateway(host, gateway, gateway.metrics_port, reach)


def servers_job(host: str) -> str:
    """Name of the job that scrapes the servers of a host, and of the file with their key."""
    return f"corral-servers-{host}"


def _exporter(host: Host, spec: MonitoringSpec, reach: Reach) -> Target | LeftOut:
    reached = reach(spec.address)
    if reached is None:
        return LeftOut(
            name=host.name,
            why=f"its node_exporter listens on {spec.address}",
            next_step='name an "address" of a trusted network in its "monitoring", then deploy',
        )
    labels = {"host": host.name}
    return Target(job=HOSTS, host=host.name, address=at(reached, spec.port), labels=labels)


def _server(host: Host, server: Server, reach: Reach, *, is_shut: bool) -> Target | LeftOut:
    name, end = f"{host.name}/{server.name}", server.end
    if not server.has_metrics:
        step = "set metrics = true in its profile, then deploy"
        return LeftOut(name=name, why="its profile has no metrics", next_step=step)
    reached = reach(end.address) if end.address and end.port else None
    if reached is None or end.port is None:
        return LeftOut(
            name=name,
            why=f"listens on {end.url}",
            next_step='give it an "address" on the network; its host reports its state anyhow',
        )
    if is_shut:
        return LeftOut(
            name=name,
            why="lets in its gateways alone: a key does not guard all routes",
            next_step="scrape it on its host or a gateway; its host reports its state anyhow",
        )
    return Target(
        job=servers_job(host.name),
        host=host.name,
        address=at(reached, end.port),
        labels={**_labels(host.name, server.name, server.kind), "alias": server.alias},
        key=SCRAPE,
    )


def _labels(host: str, instance: str, engine: EngineKind) -> dict[str, str]:
    return {"host": host, "instance": instance, "engine": engine}


def _gateway(host: Host, plan: GatewayPlan, port: int, reach: Reach) -> Target | LeftOut:
    reached = reach(plan.address)
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


def _reached(host: Host, address: str, *, is_here: bool) -> str | None:
    """The address to connect to; None for loopback of another host."""
    listens = ipaddress.ip_address(address)
    if is_here:
        loopback = "127.0.0.1" if listens.version == 4 else "::1"
        return loopback if listens.is_unspecified else address
    if listens.is_loopback:
        return None
    if listens.is_unspecified:
        return host.spec.member_address or str(host.data.get("ssh_hostname") or host.name)
    return address
