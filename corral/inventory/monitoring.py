"""Monitoring of a host in an inventory: the key ``monitoring`` in its data."""

from __future__ import annotations

import ipaddress

from pydantic import Field, field_validator

from corral.schema import Frozen


class MonitoringSpec(Frozen):
    """node_exporter with figures of GPUs and instances, for a Prometheus to read."""

    address: str = Field(
        default="127.0.0.1",
        description="address of node_exporter; it has no keys, so name one of a trusted network",
    )
    port: int = Field(default=9100, gt=0, lt=65536, description="port of node_exporter")
    rehash_gib_per_day: int | None = Field(
        default=None,
        gt=0,
        description="weights read again each day; so much that all is read in a month if unset",
    )

    @field_validator("address")
    @classmethod
    def _numeric(cls, address: str) -> str:
        return str(ipaddress.ip_address(address))
