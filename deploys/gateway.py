"""Stages: the gateway in front of instances, on hosts that are one."""

from __future__ import annotations

from functools import partial

from corral.project import project_root, templates
from deploys import waves
from deploys.run import fleet
from deploys.target import Target
from operations import gateway as gateway_operations


def gateway(target: Target) -> None:
    """Put its configuration and keys beside those that it runs with.

    Every host of an inventory with a gateway has the operation: their order is the same then.
    """
    if fleet().gateways:
        gateway_operations.generation(
            plan=target.plan,
            waiting=target.waiting_gateway(),
            operator=target.operator,
            name="Gateway",
        )


def switch_gateway(target: Target) -> None:
    """Switch to it, once the instances have changed; each of them moved with its own activation."""
    if not fleet().gateways:
        return
    waiting = target.waiting_gateway() is not None
    gateway_operations.switch(
        plan=target.plan,
        waiting=waiting,
        of=target.host,
        settled=waves.is_settled,
        templates=templates(project_root()),
        name="Switch the gateway",
        _if=partial(waves.may_end, target.host) if waiting else None,
    )
