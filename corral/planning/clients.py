"""Who may reach a server: the addresses that its unit lets in. Pure.

A server whose key guards all routes may be open to its whole network. One that answers some routes
without a key is open to the gateways of its inventory alone, which let a list of paths through.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence

from corral.engines import engine_module
from corral.errors import CorralError
from corral.inventory.gateway import is_numeric
from corral.inventory.hosts import Host
from corral.plan.instance import Endpoint
from corral.planning.resolved import ResolvedInstance

# Name of an instance -> the gateways in front of it. Raises CorralError where they are unknown.
InFront = Callable[[str], Sequence[Host]]
LOCAL = ("localhost",)


def nobody(_: str) -> Sequence[Host]:
    """No gateway is in front of any instance."""
    return ()


def clients(
    resolved: ResolvedInstance, endpoint: Endpoint, in_front: InFront
) -> tuple[str, ...] | None:
    """Addresses that may talk to a server, as IPAddressAllow= takes them; None for all.

    Raises CorralError for a server that answers without a key where anybody could ask.
    """
    if not is_open(endpoint):
        return LOCAL
    keyless = engine_module(resolved.kind).routes.keyless
    if not keyless:
        return None
    gateways = in_front(resolved.spec.name)
    if not gateways:
        raise _unguarded(resolved, endpoint, " ".join(keyless[0]))
    # Corral's own requests come from the host itself.
    listens = ipaddress.ip_address(str(endpoint.address))
    own = () if listens.is_unspecified else (str(listens),)
    others = (_address(gateway, resolved) for gateway in gateways if gateway != resolved.host)
    return tuple(dict.fromkeys((*LOCAL, *own, *others)))


def is_open(endpoint: Endpoint) -> bool:
    """Whether other hosts may connect."""
    return endpoint.address is not None and not ipaddress.ip_address(endpoint.address).is_loopback


def _address(gateway: Host, resolved: ResolvedInstance) -> str:
    """The address from which a gateway connects."""
    named = gateway.spec.member_address or str(gateway.data.get("ssh_hostname") or gateway.name)
    if is_numeric(named):
        return str(ipaddress.ip_address(named))
    what = f"only its gateway {gateway.name} may connect, whose IP address is not known"
    step = f'give {gateway.name} a "member_address", the address from which it connects'
    raise CorralError(resolved.where, what, step)


def _unguarded(resolved: ResolvedInstance, endpoint: Endpoint, route: str) -> CorralError:
    alias, host = resolved.alias, resolved.host.name
    what = (
        f"listens on {endpoint.address}, where no gateway of the inventory is in front of it: "
        f"{resolved.kind} answers {route} without a key, so anybody could use it"
    )
    gateway = f'"gateway": {{"aliases": {{"{alias}": {{"port": 8000}}}}}}'
    step = (
        f'remove "address": it then listens on loopback, and {gateway} in the data of {host} opens '
        f"it to clients with a key; or add that to another host, with the address of {host} in its "
        '"trusted_networks"'
    )
    return CorralError(resolved.where, what, step)
