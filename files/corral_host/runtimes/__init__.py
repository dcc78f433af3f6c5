"""Runtimes: how a unit runs its server, and how that is checked. Other code calls ``of``."""

from corral_host.runtimes.apptainer import Apptainer
from corral_host.runtimes.base import Runtime
from corral_host.system.commands import HostError

RUNTIMES = {one.kind: one for one in (Runtime(), Apptainer())}
# For plans from before plans named a runtime.
UNNAMED = "native"


def of(instance):
    """The runtime of an instance's plan. Raises HostError."""
    kind = (instance.get("runtime") or {}).get("kind", UNNAMED)
    if kind in RUNTIMES:
        return RUNTIMES[kind]
    raise HostError(
        f"the helper knows no runtime {kind}",
        "deploy from the checkout that has it, which brings its helper",
    )
