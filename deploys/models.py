"""Stage: weights, fetched and proved against the lock file."""

from __future__ import annotations

from deploys.target import Target
from operations import model


def models(target: Target) -> None:
    """Fetch the shards that have no receipt."""
    found = target.state.shards
    missing = [s for s in target.plan.shards if s.path not in found or not found[s.path].proved]
    root = target.state.models_root
    tidy = not root.unwanted_bytes and (root.marked or not target.plan.shards)
    model.shards(missing=missing, paths=target.plan.paths, tidy=tidy, name="Model shards")
