"""A host's place among hosts that take weights from each other."""

from __future__ import annotations

from corral.schema import Frozen


class SwarmPeer(Frozen):
    """A member: where its service answers; its aria2 has the next port."""

    name: str
    address: str
    port: int


class SwarmPlan(Frozen):
    """Decided with the fleet, as the host helper gets it.

    + name: of this host; + peers: all members, in the order of the inventory
    + upload_bytes_per_second: 0 for no limit
    """

    name: str
    peers: tuple[SwarmPeer, ...]
    from_hub: int
    upload_bytes_per_second: int
    upload_seconds: int
    connections: int
