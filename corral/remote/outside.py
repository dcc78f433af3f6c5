"""Ask servers from this machine, as anybody on their network could: no key guards all their routes.

Whether the kernel enforces the addresses that a unit lets in is seen from outside alone.
"""

from __future__ import annotations

import http.client
import ipaddress
from collections.abc import Sequence

from corral.host.checks import Check
from corral.inventory.hosts import Host
from corral.plan.host import HostPlan
from corral.plan.instance import InstancePlan
from corral.remote.ssh import address_of

CHECK = "outside"
# A packet that the host drops is answered by nobody.
_SECONDS = 3.0


def outside_checks(host: Host, plan: HostPlan) -> list[Check]:
    """A row for each instance that answers some routes without a key: none may answer here."""
    return [_check(host, one) for one in plan.instances if one.keyless_routes and one.endpoint.port]


def _check(host: Host, instance: InstancePlan) -> Check:
    port, route = int(instance.endpoint.port or 0), instance.keyless_routes[0]
    asked = _places(host, instance)
    answering = [place for place in asked if _answers(place, port, instance.clients or ())]
    if answering:
        detail = (
            f"it answers this machine at {_listed(answering, port)}, where {route} needs no key. "
            "Next: `journalctl -b --grep 'IP firewall'` on the host says whether its kernel cannot "
            'enforce IPAddressDeny=; then remove "address" of the instance, or close that port in '
            "the network"
        )
        return Check(instance=instance.name, check=CHECK, ok=False, detail=detail)
    detail = f"nothing answers this machine at {_listed(asked, port) or 'any address of the host'}"
    return Check(instance=instance.name, check=CHECK, ok=True, detail=detail)


def _listed(places: Sequence[str], port: int) -> str:
    return ", ".join(f"{place} port {port}" for place in places)


def _places(host: Host, instance: InstancePlan) -> list[str]:
    """Names and addresses of the host, without those of every machine."""
    listens = str(instance.endpoint.address)
    named = (listens, host.spec.member_address, address_of(host))
    return [place for place in dict.fromkeys(named) if place and not _is_every_machine(place)]


def _is_every_machine(place: str) -> bool:
    try:
        address = ipaddress.ip_address(place)
    except ValueError:
        return place in ("localhost", "@local")
    return address.is_loopback or address.is_unspecified


def _answers(place: str, port: int, clients: tuple[str, ...]) -> bool:
    """Whether anything there answers this machine, which is neither a client nor that host."""
    link = http.client.HTTPConnection(place, port, timeout=_SECONDS)
    try:
        link.connect()
        if link.sock.getsockname()[0] in (*clients, link.sock.getpeername()[0]):
            return False
        link.request("GET", "/health")
        link.getresponse()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        link.close()
    return True
