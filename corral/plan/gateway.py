"""A gateway as planned: its ports, and the servers behind each alias."""

from __future__ import annotations

import ipaddress
import re

from pydantic import Field

from corral.schema import Frozen

FULL_WEIGHT = 100
# Method and path, compared byte by byte: another case, `//`, `%2e` or a slash at the end is closed.
Route = tuple[str, str]


class HealthCheck(Frozen):
    """How a gateway asks a server whether it is ready: GET, without a key, every few seconds.

    + path: of a route that answers while all slots work
    + answer: expression (PCRE) that the body of a server that is ready has in it, and no body of
      one that loads; None where any answer with ``status`` will do
    """

    path: str = Field(pattern=r"^/[A-Za-z0-9/_.-]*$")
    status: int = 200
    answer: str | None = Field(default=None, pattern=r"^[^'\n\r]+$")

    @property
    def expected(self) -> str:
        """As HAProxy's `http-check expect` takes it."""
        return f"rstring '{self.answer}'" if self.answer else f"status {self.status}"


class Member(Frozen):
    """One server behind a gateway.

    + name: ``host/instance``; + server: its name in HAProxy
    + address: IP address on a network that the gateway trusts; + weight: 0 to 100
    + most_requests: that it gets at once, more wait at the gateway; None: any number
    """

    name: str
    server: str
    address: str
    port: int
    weight: int
    most_requests: int | None = None


class Pool(Frozen):
    """The servers of one alias, behind one port of the gateway.

    + name: the alias in characters that HAProxy and file names allow
    + open, closed: routes of its servers that clients can and cannot reach
    + health: health check of the gateway for its servers
    + left_out: instances with this alias that the gateway cannot reach, with the reason
    """

    alias: str
    name: str
    port: int
    members: tuple[Member, ...]
    open: tuple[Route, ...]
    closed: tuple[Route, ...]
    health: HealthCheck
    left_out: tuple[str, ...] = ()

    @property
    def open_paths(self) -> dict[str, list[str]]:
        """Method -> paths that are open to clients."""
        methods = dict.fromkeys(method for method, _ in self.open)
        return {name: [p for method, p in self.open if method == name] for name in methods}


class GatewayPlan(Frozen):
    """One gateway without its secrets; ``folder`` holds its generations on the host."""

    folder: str
    address: str
    metrics_port: int | None
    tls: bool
    pools: tuple[Pool, ...]

    @property
    def ports(self) -> tuple[int, ...]:
        """Every TCP port that the gateway listens on."""
        metrics = [self.metrics_port] if self.metrics_port else []
        return (*(pool.port for pool in self.pools), *metrics)

    @property
    def member_hosts(self) -> frozenset[str]:
        """The hosts of all members."""
        members = (member for pool in self.pools for member in pool.members)
        return frozenset(member.name.rpartition("/")[0] for member in members)

    def pool_of(self, member: str) -> Pool | None:
        """The pool that contains ``host/instance``."""
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
