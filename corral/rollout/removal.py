"""Removal of an instance: drained at its gateways and by itself, then taken from its host."""

from __future__ import annotations

import json

from corral.host.answers import REMOVED_INSTANCE, RemovedInstance
from corral.inventory.hosts import Host
from corral.planning.host_paths import host_paths
from corral.remote.client import HelperClient, current_operator
from corral.rollout.pausing import Gateways

# Beyond the time for requests in flight: systemd's commands.
_MORE_SECONDS = 300


def remove(
    helper: HelperClient,
    host: Host,
    instance: str,
    gateways: Gateways,
    *,
    drain_seconds: int,
    rollout: str | None = None,
) -> RemovedInstance:
    """Drain and remove an instance. Raises CorralError; then it may still be there, stopped.

    + gateways: those of its inventory; + drain_seconds: for requests in flight
    + rollout: id of the rollout that removes it, if any
    """
    document = {
        "paths": host_paths(host).model_dump(),
        "instance": instance,
        "by": current_operator(),
        "rollout": rollout,
        "drain_seconds": drain_seconds,
    }
    with gateways.drained(f"{host.name}/{instance}", drain_seconds) as drained:
        answer = helper.ask(
            ["remove"], REMOVED_INSTANCE, json.dumps(document),
            seconds=drain_seconds + _MORE_SECONDS,
        )  # fmt: skip
        drained.stays_down()
    return answer
