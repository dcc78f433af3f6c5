"""Removal of unused releases from hosts after a converged rollout."""

from __future__ import annotations

from collections.abc import Sequence

from corral.errors import CorralError
from corral.host.answers import REMOVED
from corral.inventory.hosts import Host
from corral.plan.host import HostPlan
from corral.remote.client import installed_helper
from corral.remote.run import on_all

Pair = tuple[Host, HostPlan]


def prune(pairs: Sequence[Pair]) -> list[str]:
    """Remove unused releases; one line for each host with a removal or a failure."""
    return [line for line in on_all(_prune, pairs) if line]


def _prune(pair: Pair) -> str:
    host, plan = pair
    try:
        client = installed_helper(host, plan.paths.helper)
        removed = client.ask(["prune"], REMOVED, plan.to_helper())
    except CorralError as error:
        return f"{host.name}: {error.what}; the next deploy removes what is unused"
    return f"{host.name}: removed, as nothing uses it: {', '.join(removed)}" if removed else ""
