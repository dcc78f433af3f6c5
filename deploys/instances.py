"""Stages: key files and generations (no service touched), activation, verification."""

from __future__ import annotations

from deploys.target import Target
from operations import instance


def instances(target: Target) -> None:
    """Put keys and generations in place."""
    helper = target.plan.paths.helper
    instance.keys(
        changed=target.changed_keys(), helper=helper, files=target.keys, name="API key files"
    )
    instance.generations(missing=target.missing_instances(), helper=helper, name="Generations")


def activate(target: Target) -> None:
    """Switch what does not serve its planned generation yet."""
    instance.activate(waiting=target.waiting_instances(), plan=target.plan, name="Activate")


def verify(target: Target) -> None:
    """Compare every instance with its plan."""
    instance.verify(plan=target.plan, name="Verify endpoints")
