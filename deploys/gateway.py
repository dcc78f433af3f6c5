"""Stage: the gateway in front of instances, on hosts that are one."""

from __future__ import annotations

from deploys.fleet import gateways
from deploys.target import Target
from operations import gateway as gateway_operations


def gateway(target: Target) -> None:
    """Put its configuration and keys in place; reloaded when they changed.

    Every host of an inventory with a gateway has the operation: their order is the same then.
    """
    if not gateways():
        return
    gateway_operations.generation(
        plan=target.plan, waiting=target.waiting_gateway(), name="Gateway"
    )
