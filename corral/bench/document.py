"""What the helper must know of an instance to measure it."""

from __future__ import annotations

from typing import Any

from corral.inventory.hosts import Host
from corral.plan.host import HostPlan
from corral.plan.instance import INSTANCE_FILES, InstancePlan


def measured(host: Host, plan: HostPlan, instance: InstancePlan) -> dict[str, Any]:
    """The part that all measurements have; ``instances`` are all of the host, which could disturb.

    + plan: of the whole host, or what of it the host keeps
    """
    everyone = [one.model_dump(mode="json", exclude=set(INSTANCE_FILES)) for one in plan.instances]
    return {
        "host": host.name,
        "state": plan.paths.state,
        "instance": instance.name,
        "instances": everyone,
        "release": {
            "engine": instance.engine,
            "key": instance.release,
            "folder": instance.release_folder,
        },
    }
