"""Results of checks on running instances (files/corral_host/check.py makes them)."""

from __future__ import annotations

from corral.plan import HostPlan
from corral.schema import Frozen


class Check(Frozen):
    """One check of one instance."""

    instance: str
    check: str
    ok: bool
    detail: str


def failures(plan: HostPlan, checks: list[Check]) -> list[str]:
    """A sentence for each failed check, and for each instance that was not checked at all."""
    failed = [f"{c.instance}: {c.check}: {c.detail}" for c in checks if not c.ok]
    checked = {c.instance for c in checks}
    unchecked = [i.name for i in plan.instances if i.name not in checked]
    return failed + [f"{name}: not checked" for name in unchecked]
