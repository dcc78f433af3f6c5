"""Stage: engine releases, built from their pinned commits."""

from __future__ import annotations

from deploys.target import Target
from operations import engine


def engines(target: Target) -> None:
    """Build the releases that the host lacks."""
    found = target.state.releases
    missing = [r for r in target.plan.releases if not found.get(r.key, False)]
    engine.releases(missing=missing, paths=target.plan.paths, name="Engine releases")
