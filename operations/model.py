"""Weights."""

from __future__ import annotations

from collections.abc import Sequence

from pyinfra import host
from pyinfra.api import operation

from corral.plan import ShardPlan
from corral.settings import HostPaths
from operations import Commands, job


@operation()
def shards(missing: Sequence[ShardPlan], *, paths: HostPaths) -> Commands:
    """Fetch shards and prove each against its locked digest; what arrived is resumed.

    + missing: those without a receipt on the host; + paths: folders on the host.
    """
    if not missing:
        host.noop("all shards are proved")
        return
    spec = {
        "shards": [shard.model_dump(mode="json") for shard in missing],
        "paths": paths.model_dump(mode="json"),
    }
    yield from job.run(paths.helper, "fetch", "fetch", spec)
