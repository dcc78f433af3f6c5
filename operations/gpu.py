"""GPU hosts: driver and toolkit, the reboot that a driver may need, the proof afterwards."""

from __future__ import annotations

from contextlib import nullcontext

from pyinfra import host, state
from pyinfra.api import operation

from corral.catalog.drivers import KEYRING_FILE
from corral.findings import Finding
from corral.host.state import GpuHost
from corral.nvidia.decision import GpuDecision
from corral.nvidia.driver import reboot_needed, reboot_pending
from corral.offline.deploy import AptFiles
from corral.plan.host import HostPlan
from corral.preflight.gpus import gpu_findings
from facts.gpu import Gpus
from operations import Commands, job, reboot

_UNASKED = Finding(what="GPUs could not be asked for", next_step="run the same deploy again")


@operation()
def drivers(
    plan: HostPlan, *, decision: GpuDecision, apt_files: AptFiles | None = None
) -> Commands:
    """Install, pin, hold and load driver and toolkit, detached from this connection.

    + decision: what corral.gpu_host decided; + apt_files: of a bundle as the only source
    """
    if plan.gpus is None:
        host.noop("no GPUs in the inventory")
        return
    if not decision.prepares:
        host.noop("driver and toolkit are as planned")
        return
    spec = {**decision.model_dump(mode="json"), "keyring": KEYRING_FILE}
    if apt_files:
        spec |= {"files": {**spec["files"], **apt_files.files}, "apt_config": apt_files.config}
    yield from job.run(plan.paths.helper, "drivers", "drivers", spec)


@operation()
def restart(
    plan: HostPlan,
    *,
    driver_changes: bool,
    allow_reboot: bool = False,
    drained: reboot.Drained = nullcontext,
) -> Commands:
    """Reboot a host whose installed driver is not the one that runs, and wait for it.

    + driver_changes: whether this deploy changed the driver; + allow_reboot: whether it may reboot
    the host; + drained: see ``reboot.reboot``. Give ``_serial=True``: one at a time.
    """
    found = _changed(plan, driver_changes)
    if found is None or not reboot_pending(found):
        host.noop("the installed driver is the one that runs")
        return
    if not allow_reboot:
        yield from _stop([reboot_needed(plan, found)])
        return
    yield from reboot.reboot(reboot_needed(plan, found).what, drained=drained)


@operation()
def ready(plan: HostPlan, *, driver_changes: bool) -> Commands:
    """See that the planned GPUs answer and are healthy under a changed driver; never a change.

    + driver_changes: whether this deploy changed the driver.
    """
    found = _changed(plan, driver_changes)
    if not driver_changes or not state.is_executing:
        host.noop("checked in preflight, or once the driver is in place")
        return
    findings = gpu_findings(plan, found) if found else [_UNASKED]
    if findings:
        yield from _stop(findings)
        return
    host.noop("all planned GPUs answer")


def _changed(plan: HostPlan, driver_changes: bool) -> GpuHost | None:
    """The host after the change; None where there is none, or where it is still to come."""
    if not driver_changes or not state.is_executing:
        return None
    found: GpuHost | None = host.get_fact(Gpus, helper=plan.paths.helper, _stdin=plan.to_helper())
    return found


def _stop(findings: list[Finding]) -> Commands:
    lines = [line for f in findings for line in (f.what, f"  Next: {f.next_step}")]
    yield from job.fail("\n".join(lines))
