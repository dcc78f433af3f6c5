"""A gateway as planned: its ports, and the servers behind each alias."""

from __future__ import annotations

import ipaddress
import re

from corral.plan.gateway_routes import CLOSED, OPEN, Route
from corral.schema import Frozen

FULL_WEIGHT = 100


class Member(Frozen):
    """One server behind a gateway.

    + name: ``host/instance``; + server: the same as HAProxy calls it
    + address: numeric, on a network that the gateway trusts; + weight: 0 to 100
    """

    name: str
    server: str
    address: str
    port: int
    weight: int


class Pool(Frozen):
    """The servers of one alias, behind one port of the gateway.

    + name: the alias as HAProxy and file names can hold it
    + left_out: instances with this alias that the gateway cannot reach, each with the reason
    """

    alias: str
    name: str
    port: int
    members: tuple[Member, ...]
    left_out: tuple[str, ...] = ()


class GatewayPlan(Frozen):
    """All of one gateway but its secrets; ``folder`` holds its generations on the host.

    + open, closed: routes of the engines that its clients reach, and those that they do not
    """

    folder: str
    address: str
    metrics_port: int | None
    tls: bool
    pools: tuple[Pool, ...]
    open: tuple[Route, ...] = OPEN
    closed: tuple[Route, ...] = tuple(CLOSED)

    @property
    def ports(self) -> tuple[int, ...]:
        """Every TCP port that it listens on."""
        metrics = [self.metrics_port] if self.metrics_port else []
        return (*(pool.port for pool in self.pools), *metrics)

    @property
    def open_paths(self) -> dict[str, list[str]]:
        """Method -> paths that are open to clients."""
        methods = dict.fromkeys(method for method, _ in self.open)
        return {name: [p for method, p in self.open if method == name] for name in methods}

    @property
    def member_hosts(self) -> frozenset[str]:
        """The hosts of all servers behind it."""
        members = (member for pool in self.pools for member in pool.members)
        return frozenset(member.name.rpartition("/")[0] for member in members)

    def pool_of(self, member: str) -> Pool | None:
        """The pool that ``host/instance`` is in."""
        pools = (p for p in self.pools if member in (m.name for m in p.members))
        return next(pools, None)


def server_name(name: str) -> str:
    """``host/instance``, or an alias, in the characters that HAProxy allows in names."""
    return re.sub(r"[^A-Za-z0-9.:-]", "_", name)


def at(address: str, port: int) -> str:
    """ADDRESS:PORT as HAProxy reads it."""
    return f"[{address}]:{port}" if _is_ipv6(address) else f"{address}:{port}"


def _is_ipv6(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).version == 6
    except ValueError:
        return False
