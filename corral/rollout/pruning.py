"""Removal of unused releases and weights from hosts after a converged rollout."""

from __future__ import annotations

from collections.abc import Sequence

from corral.errors import CorralError
from corral.host.answers import PRUNED_WEIGHTS, REMOVED
from corral.inventory.hosts import Host
from corral.plan.host import HostPlan
from corral.remote.client import installed_helper
from corral.remote.run import on_all

Pair = tuple[Host, HostPlan]


def prune(pairs: Sequence[Pair]) -> list[str]:
    """Remove unused releases, and weights where the inventory says so; a line for each change."""
    return [line for line in on_all(_prune, pairs) if line]


def _prune(pair: Pair) -> str:
    host, plan = pair
    try:
        client = installed_helper(host, plan.paths.helper)
        removed = client.ask(["prune"], REMOVED, plan.to_helper())
        if host.spec.keep_weights == "referenced":
            weights = client.ask(["prune-weights"], PRUNED_WEIGHTS, plan.to_helper())
            removed = [*removed, *weights.removed]
    except CorralError as error:
        return f"{host.name}: {error.what}; the next deploy removes what is unused"
    return f"{host.name}: removed, as nothing uses it: {', '.join(removed)}" if removed else ""
