"""Stage: weights, fetched and proved against the lock file."""

from __future__ import annotations

from deploys.target import Target
from operations import model


def models(target: Target) -> None:
    """Fetch the shards that have no receipt."""
    prune_weights(target, changes=False)
    found = target.state.shards
    missing = [s for s in target.plan.shards if s.path not in found or not found[s.path].proved]
    root = target.state.models_root
    tidy = not root.unwanted_bytes and (root.marked or not target.plan.shards)
    model.shards(missing=missing, paths=target.plan.paths, tidy=tidy, name="Model shards")


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
