"""Results of checks on running instances, from files/corral_host/checks/verify.py."""

from __future__ import annotations

from corral.plan.host import HostPlan
from corral.schema import Frozen


class Check(Frozen):
    """One check of one instance, or of one alias of a gateway."""

    instance: str
    check: str
    ok: bool
    detail: str


def subjects(plan: HostPlan) -> list[str]:
    """Names of all that is checked: instances, aliases of a gateway, Prometheus."""
    pools = plan.gateway.pools if plan.gateway else ()
    watching = plan.monitoring.answers if plan.monitoring else ()
    own = [i.name for i in plan.instances]
    return [*own, *(f"gateway {pool.alias}" for pool in pools), *watching]


def failures(plan: HostPlan, checks: list[Check]) -> list[str]:
    """A sentence for each failed check, and for each subject that was not checked at all."""
    failed = [f"{c.instance}: {c.check}: {c.detail}" for c in checks if not c.ok]
    checked = {c.instance for c in checks}
    unchecked = [name for name in subjects(plan) if name not in checked]
    return failed + [f"{name}: not checked" for name in unchecked]
