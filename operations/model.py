"""Weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pyinfra import host
from pyinfra.api import operation
from pyinfra.api.command import FunctionCommand, QuoteString, StringCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State

from corral.paths import HostPaths
from corral.plan.host import HostPlan
from corral.plan.swarm import SwarmPlan
from corral.plan.weights import ShardPlan
from corral.sources.hub_token import operator_token
from operations import Commands, job


@dataclass(frozen=True)
class Exchange:
    """Weights between hosts of one run.

    + held: shards of the host's plan that are proved there
    + lacking: digest -> hosts of the run that lack it and may still get it, asked when the
      operation runs: only then the state of all hosts is known
    """

    swarm: SwarmPlan
    held: Sequence[ShardPlan]
    lacking: Callable[[], dict[str, frozenset[str]]]

    def wanted(self) -> list[ShardPlan]:
        """Shards of the host that other members lack."""
        lacking = self.lacking()
        return [s for s in self.held if lacking.get(s.sha256, frozenset()) & self._others]

    def expected(self) -> list[str]:
        """Members that take part as they lack something."""
        return sorted(frozenset[str]().union(*self.lacking().values()) & self._others)

    @property
    def _others(self) -> frozenset[str]:
        return frozenset(peer.name for peer in self.swarm.peers) - {self.swarm.name}


@operation()
def shards(
    missing: Sequence[ShardPlan],
    *,
    paths: HostPaths,
    tidy: bool = True,
    exchange: Exchange | None = None,
) -> Commands:
    """Fetch shards and prove each against its locked digest; what arrived is resumed.

    + missing: all of the host's plan that have no receipt there; + paths: folders on the host
    + tidy: the folder of all weights is marked, and nothing is left in it of downloads that
      nobody plans any more; a fetch of nothing sees to both
    + exchange: with other hosts; one that has all serves those that lack some
    """
    if exchange and (missing or exchange.wanted()):
        yield FunctionCommand(take_part, (tuple(missing), paths, exchange), {})
        return
    if not missing and tidy:
        host.noop("all shards are proved")
        return
    spec = {
        "shards": [shard.model_dump(mode="json") for shard in missing],
        "paths": paths.model_dump(mode="json"),
    }
    token = operator_token() if any(shard.gated for shard in missing) else None
    yield from job.run(paths.helper, "fetch", "fetch", spec, token=token)


def take_part(
    state: State,  # noqa: ARG001 - pyinfra's
    host: Host,
    missing: Sequence[ShardPlan],
    paths: HostPaths,
    exchange: Exchange,
) -> bool:
    """Bring what is missing from other hosts or the hub, and serve what others lack."""
    spec = {
        "shards": [shard.model_dump(mode="json") for shard in missing],
        "held": [shard.model_dump(mode="json") for shard in exchange.wanted()],
        "swarm": {**exchange.swarm.model_dump(mode="json"), "expected": exchange.expected()},
        "paths": paths.model_dump(mode="json"),
    }
    token = operator_token() if any(shard.gated for shard in missing) else None
    return job.perform(host, paths.helper, "fetch", "swarm", spec, token=token)


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
