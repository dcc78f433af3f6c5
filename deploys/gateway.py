"""Stage: the gateway in front of instances, on hosts that are one."""

from __future__ import annotations

from deploys.target import Target
from operations import gateway as gateway_operations


def gateway(target: Target) -> None:
    """Put its configuration and keys in place; reloaded, never restarted, when they changed."""
    if target.plan.gateway is None:
        return
    gateway_operations.generation(
        plan=target.plan, waiting=target.waiting_gateway(), name="Gateway"
    )
