"""Stage: NVIDIA driver and CUDA toolkit; hosts reboot one at a time, and only if allowed."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial

from pyinfra import host

from corral.nvidia.decision import decide
from corral.rollout.pausing import Gateways
from corral.rollout.rebooting import drained_host
from deploys.run import fleet
from deploys.target import Target
from operations import gpu as gpu_operations
from operations.messages import inform, warn


def gpu(target: Target) -> None:
    """Bring driver and toolkit to what the planned releases need."""
    plan = target.plan
    if plan.gpus is None:
        inform(f"[{host.name}] no GPUs in the inventory: no driver is touched")
    allow_reboot = target.host.options.allow_reboot
    decision = decide(plan, target.state, allow_reboot=allow_reboot)
    gpu_operations.drivers(
        plan=plan, decision=decision, apt_files=target.apt_files, name="GPU driver and toolkit"
    )
    if plan.gpus is None:
        return
    changes = decision.driver_changes
    gpu_operations.restart(
        plan=plan, driver_changes=changes, allow_reboot=allow_reboot,
        drained=partial(_drained, target), name="Driver restart", _serial=True,
    )  # fmt: skip
    gpu_operations.ready(plan=plan, driver_changes=changes, name="GPUs answer")


def _drained(target: Target) -> AbstractContextManager[None]:
    """Without traffic to the host's servers; see ``drained_host``."""
    in_front = tuple(one for one in fleet().everyone if one.spec.gateway)
    gateways = Gateways(in_front, f"corral stop {target.plan.host}", warn)
    return drained_host(gateways, target.plan.host, target.plan.instances)
