"""A host as it would be with other overrides of an instance, to be planned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from corral.inventory.hosts import Host


def with_overrides(host: Host, instance: str, keys: Mapping[str, Any]) -> Host:
    """A host of which one instance overrides more keys of its profile."""
    instances = tuple(
        one.model_copy(update={"overrides": {**one.overrides, **keys}})
        if one.name == instance
        else one
        for one in host.spec.instances
    )
    spec = host.spec.model_copy(update={"instances": instances})
    return host.model_copy(update={"spec": spec})
