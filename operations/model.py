"""Weights."""

from __future__ import annotations

from collections.abc import Sequence

from pyinfra import host
from pyinfra.api import operation
from pyinfra.api.command import QuoteString, StringCommand

from corral.paths import HostPaths
from corral.plan.host import HostPlan
from corral.plan.weights import ShardPlan
from corral.sources.hub_token import operator_token
from operations import Commands, job


@operation()
def shards(missing: Sequence[ShardPlan], *, paths: HostPaths, tidy: bool = True) -> Commands:
    """Fetch shards and prove each against its locked digest; what arrived is resumed.

    + missing: all of the host's plan that have no receipt there; + paths: folders on the host
    + tidy: the folder of all weights is marked, and nothing is left in it of downloads that
      nobody plans any more; a fetch of nothing sees to both
    """
    if not missing and tidy:
        host.noop("all shards are proved")
        return
    spec = {
        "shards": [shard.model_dump(mode="json") for shard in missing],
        "paths": paths.model_dump(mode="json"),
    }
    token = operator_token() if any(shard.gated for shard in missing) else None
    yield from job.run(paths.helper, "fetch", "fetch", spec, token=token)


@operation()
def pruned(prunable_bytes: int, *, changes: bool, plan: HostPlan) -> Commands:
    """Remove weights that no generation, process or plan needs.

    + prunable_bytes: before this deploy; + changes: whether it activates anything.
    """
    if not prunable_bytes and not changes:
        host.noop("all weights are needed")
        return
    helper = QuoteString(plan.paths.helper)
    yield StringCommand("python3", "-I", helper, "prune-weights", _stdin=plan.to_helper())
