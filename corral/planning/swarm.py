"""Which hosts take weights from each other, and where they reach each other. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from corral.errors import CorralError
from corral.inventory.gateway import is_loopback, is_numeric
from corral.inventory.hosts import Host
from corral.plan.swarm import SwarmPeer, SwarmPlan

_MIB = 1024**2


def swarm_plan(
    host: Host, hosts: Sequence[Host], without: Collection[str] = ()
) -> SwarmPlan | None:
    """The swarm of a host; None for a host without, or without other members.

    + hosts: all of the inventory, in its order; + without: names of those with a mistake
    Raises CorralError for a host whose address is not one.
    """
    spec = host.spec.swarm
    if spec is None:
        return None
    if not _is_address(_address(host)):
        what = f'"swarm" needs an address of the network, not {_address(host)!r}'
        raise CorralError(host.name, what, 'set "member_address" to its IP address')
    members = [
        one for one in hosts
        if one.spec.swarm and one.spec.swarm.name == spec.name and _is_address(_address(one))
        and one.name not in without
    ]  # fmt: skip
    if len(members) < 2:
        return None
    return SwarmPlan(
        name=host.name,
        peers=tuple(_peer(one) for one in members),
        from_hub=spec.from_hub,
        upload_bytes_per_second=(spec.upload_mib_per_second or 0) * _MIB,
        upload_seconds=spec.upload_minutes * 60,
        connections=spec.max_connections,
    )


def _peer(host: Host) -> SwarmPeer:
    port = host.spec.swarm.port if host.spec.swarm else 0
    return SwarmPeer(name=host.name, address=_address(host), port=port)


def _address(host: Host) -> str:
    return str(host.spec.member_address or host.data.get("ssh_hostname") or host.name)


def _is_address(text: str) -> bool:
    return is_numeric(text) and not is_loopback(text)
