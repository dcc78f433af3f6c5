"""Hosts that take weights from each other: the key ``swarm`` in the data of a group."""

from __future__ import annotations

from pydantic import Field

from corral.schema import Frozen


class SwarmSpec(Frozen):
    """Weights over the LAN; ``True`` in an inventory stands for these defaults."""

    name: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9._-]{0,47}$",
        description="hosts with one name take from each other: one for each site",
    )
    port: int = Field(
        default=6880,
        gt=0,
        lt=65535,
        description="of its service; aria2 has the next one. Both are open to members alone",
    )
    from_hub: int = Field(
        default=1, gt=0, description="hosts that fetch from the hub at the same time"
    )
    upload_mib_per_second: int | None = Field(
        default=None, gt=0, description="the most that a host sends to others; no limit if unset"
    )
    max_connections: int = Field(
        default=40, gt=0, le=1000, description="connections to other hosts, for each file"
    )
    upload_minutes: int = Field(
        default=240,
        gt=0,
        description="how long a host that has all its weights serves others that lack some",
    )
