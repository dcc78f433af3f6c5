"""A GPU host, as the rules about its driver and toolkit look at it."""

from __future__ import annotations

from dataclasses import dataclass

from corral.catalog.drivers import DriverSource, GpuSetup
from corral.host.state import GpuHost
from corral.inventory.hosts import GpuSpec
from corral.nvidia import versions
from corral.plan.host import HostPlan


@dataclass(frozen=True)
class Case:
    """One host; ``system`` as in debian-12, ``source`` its entry of the catalog."""

    plan: HostPlan
    setup: GpuSetup
    gpus: GpuSpec
    host: GpuHost
    system: str
    source: DriverSource | None
    digests: dict[str, str]

    @property
    def running(self) -> str | None:
        """Version of the loaded module."""
        listed = [gpu.driver_version for gpu in self.host.gpus if gpu.driver_version]
        return self.host.driver.module_version or next(iter(listed), None)

    @property
    def installed(self) -> str | None:
        """Version that runs after a reboot."""
        return self.host.driver.library_version or self.running


@dataclass(frozen=True)
class Minimum:
    """The least driver, and for what."""

    version: str
    reason: str


def minimum(case: Case, toolkit: str | None) -> Minimum:
    """The strictest of what the planned releases and a toolkit ask of the driver."""
    needs = [Minimum(e.minimum_driver, e.release) for e in case.setup.engines]
    if toolkit:
        needs.append(Minimum(versions.minimum_driver(toolkit), f"CUDA toolkit {toolkit}"))
    return max(needs, key=lambda need: versions.key(need.version), default=Minimum("0", ""))
