"""The plan of a host: the result of planning, and the only input of later stages."""

from __future__ import annotations

from typing import Any

from corral.catalog.drivers import GpuSetup
from corral.inventory.hosts import GpuSpec
from corral.paths import HostPaths
from corral.plan.gateway import GatewayPlan
from corral.plan.instance import INSTANCE_FILES, InstancePlan
from corral.plan.monitoring import MonitoringPlan
from corral.plan.release import ReleasePlan
from corral.plan.swarm import SwarmPlan
from corral.plan.weights import ShardPlan
from corral.schema import Frozen

_ALL_FILES: dict[str, Any] = {
    **dict.fromkeys(INSTANCE_FILES, True),
    "activation": {"spare": {"unit_text"}},
}


# Some 400 KB in each; the jobs that make and install releases get them in their own documents.
_TEXTS: dict[str, Any] = {"requirements": True, "installer": True}
_TEXT_OF_RELEASES = {"__all__": {"artifact": {**_TEXTS, "of": {"artifact": _TEXTS}}}}


class HostPlan(Frozen):
    """Everything decided for one host; nothing downstream decides it again.

    + memory_gib: host memory as the inventory describes it
    + builds: releases that this host builds for the fleet, its own included
    + gateway: the gateway on this host; like ``builds``, decided with the fleet (FleetPlan)
    + swarm: the hosts with which it exchanges weights; decided with the fleet as well
    """

    host: str
    platform: str
    paths: HostPaths
    packages: tuple[str, ...]
    commands: tuple[str, ...]
    memory_gib: int | None = None
    gpus: GpuSpec | None
    gpu_setup: GpuSetup | None = None
    releases: tuple[ReleasePlan, ...]
    builds: tuple[ReleasePlan, ...] = ()
    shards: tuple[ShardPlan, ...]
    instances: tuple[InstancePlan, ...]
    gateway: GatewayPlan | None = None
    monitoring: MonitoringPlan | None = None
    swarm: SwarmPlan | None = None

    def instance(self, name: str) -> InstancePlan | None:
        """The instance called ``name``, if this host has one."""
        return next((i for i in self.instances if i.name == name), None)

    def to_helper(self) -> str:
        """The plan as input of the host helper: JSON, without the text of files."""
        return self.model_dump_json(
            exclude={
                "instances": {"__all__": _ALL_FILES},
                "releases": _TEXT_OF_RELEASES,
                "builds": _TEXT_OF_RELEASES,
            }
        )
