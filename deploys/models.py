"""Stage: weights, fetched and proved against the lock file."""

from __future__ import annotations

from pyinfra import host

from deploys.run import failed, this_run
from deploys.target import Target
from operations import model


def models(target: Target) -> None:
    """Fetch the shards that have no receipt."""
    prune_weights(target, changes=False)
    missing = target.missing_shards()
    root = target.state.models_root
    tidy = not root.unwanted_bytes and (root.marked or not target.plan.shards)
    this_run().lacking_weights[host.name] = frozenset(shard.sha256 for shard in missing)
    exchange = None
    if target.plan.swarm:
        held = [shard for shard in target.plan.shards if shard not in missing]
        exchange = model.Exchange(target.plan.swarm, held, lacking)
    model.shards(
        missing=missing, paths=target.plan.paths, tidy=tidy, exchange=exchange, name="Model shards"
    )


def lacking() -> dict[str, frozenset[str]]:
    """Digest -> hosts of this run that lacked it when they were looked at, without failed ones."""
    found: dict[str, frozenset[str]] = {}
    for name, digests in this_run().lacking_weights.items():
        if name not in failed():
            found |= {one: found.get(one, frozenset()) | {name} for one in digests}
    return found


def prune_weights(target: Target, *, changes: bool) -> None:
    """Remove weights that nobody needs, where the inventory says so.

    + changes: what this deploy activated may have left some
    """
    if target.prunes_weights:
        model.pruned(
            prunable_bytes=target.state.models_root.prunable_bytes,
            changes=changes,
            plan=target.plan,
            name="Unused weights",
        )
