"""Which instances `corral bench` measures, with their plans or what is installed of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from corral.cli.reach import Planned, Target, not_installed, stored_plans
from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.plan.host import HostPlan
from corral.plan.instance import InstancePlan
from corral.terminal import echo

Selected = tuple[Target, tuple[str, ...]]
T = TypeVar("T")


def with_neighbours(targets: Sequence[Target]) -> list[Selected]:
    """Targets with all instances of their hosts, and the names of those to measure."""
    return [
        (replace(target, names=target.host.instance_names, whole=False), target.names)
        for target in targets
    ]


def to_measure(
    selected: Selected, made: Planned, how: Callable[[Host, HostPlan, InstancePlan], T]
) -> list[T | CorralError]:
    """What to run on one host, one after the other."""
    target, names = selected
    try:
        plan = _plan(target, made)
    except CorralError as error:
        return [error]
    found = {name: plan.instance(name) for name in names}
    return [
        how(target.host, plan, one) if one else not_installed(target.host, name)
        for name, one in found.items()
    ]


def _plan(target: Target, made: Planned) -> HostPlan:
    """The plan of a host, else its installed generations. Raises CorralError."""
    if plan := made.plans.get(target.host.name):
        return plan
    stored = stored_plans(replace(target, names=()), whole=True)
    echo(f"{target.host.name} is measured as it is installed there, not as planned", err=True)
    return stored
