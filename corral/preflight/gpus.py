"""Checks of GPUs before any change: there, described rightly, healthy. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from corral.findings import Finding
from corral.host.state import Gpu, GpuHost
from corral.inventory.hosts import GpuSpec
from corral.plan.host import HostPlan

# After these a GPU gives wrong answers or none: 48 and 95 are uncorrectable memory errors, 94 is
# one that was contained, 79 is a GPU that fell off the bus. Source: NVIDIA's "XID Errors".
DRAINING_XIDS = frozenset({48, 79, 94, 95})
# A part of a card's memory is kept by ECC and firmware: 40442 of a nominal 40960 MiB measured.
_LEAST_MEMORY = 0.9


def gpu_findings(plan: HostPlan, host: GpuHost) -> list[Finding]:
    """Findings that block serving on the planned GPUs; empty for a host without any."""
    if plan.gpus is None:
        return []
    return [
        *_count(plan.gpus, host),
        *_sets(plan, host),
        *_memory(plan.gpus, host),
        *_health(host),
    ]


def bus_findings(plan: HostPlan, host: GpuHost) -> Iterator[Finding]:
    """What can be told of GPUs before their driver runs."""
    found = len(host.pci_gpus)
    if plan.gpus and found < plan.gpus.count:
        yield Finding(
            what=f"{plan.gpus.count} GPUs planned, the PCI bus shows {found}",
            next_step="look at the cards, or describe the host's real GPUs in the inventory",
        )


def _count(spec: GpuSpec, host: GpuHost) -> Iterator[Finding]:
    capability = spec.compute_capability
    fitting = [gpu for gpu in host.gpus if gpu.compute_capability == capability]
    if len(fitting) < spec.count:
        names = ", ".join(f"{gpu.name} ({gpu.compute_capability})" for gpu in host.gpus)
        said = "; ".join(filter(None, [names, host.problem])) or "none"
        planned = f"{spec.count} GPUs of compute capability {capability} planned"
        bus = "" if host.gpus or host.pci_gpus else "; the PCI bus shows no NVIDIA GPU"
        yield Finding(
            what=f"{planned}, nvidia-smi says: {said}{bus}",
            next_step="look at the card and its driver on the host, or describe the host's real "
            "GPUs in the inventory",
        )


def _sets(plan: HostPlan, host: GpuHost) -> Iterator[Finding]:
    known = {gpu.index for gpu in host.gpus} | {gpu.uuid for gpu in host.gpus}
    # Where there are none at all, that alone is told.
    for instance in plan.instances if host.gpus else ():
        for gone in [gpu for gpu in instance.gpus if gpu not in known]:
            there = ", ".join(f"{gpu.index} ({gpu.uuid})" for gpu in host.gpus)
            yield Finding(
                what=f"{instance.name}: GPU {gone} is not there; nvidia-smi shows {there}",
                next_step="name another in the instance's gpus, or fix the host",
            )


def _memory(spec: GpuSpec, host: GpuHost) -> Iterator[Finding]:
    for gpu in host.gpus:
        total, described = gpu.memory_total_mib, spec.memory_mib
        if total and described and total < described * _LEAST_MEMORY:
            yield Finding(
                what=f"GPU {gpu.index} has {total} MiB, {described} MiB are described",
                next_step="correct gpus.memory_mib in the inventory",
            )


def _health(host: GpuHost) -> Iterator[Finding]:
    """Also of GPUs that no instance names: a sick one can take the driver down with it."""
    for gpu in host.gpus:
        if fault := _sick(gpu):
            yield Finding(
                what=f"GPU {gpu.index} ({gpu.pci}): {fault}",
                next_step="drain the host, then reset the GPU (nvidia-smi --gpu-reset) or reboot; "
                "replace the card if it comes back",
            )
    for pci in host.lost:
        yield Finding(what=f"GPU {pci} is lost: {host.problem}", next_step="reboot the host")
    yield from _xids(host)


def _sick(gpu: Gpu) -> str:
    if gpu.problem:
        return f"nvidia-smi says {gpu.problem}"
    if gpu.ecc_uncorrected:
        return f"{gpu.ecc_uncorrected} uncorrectable memory errors since the driver was loaded"
    return ""


def _xids(host: GpuHost) -> Iterator[Finding]:
    if host.xids_unreadable:
        yield Finding(
            what=f"the kernel log cannot be read for Xid errors: {host.xids_unreadable}",
            next_step="see that `journalctl -k` shows the kernel's messages on the host",
        )
    found = {(xid.pci, xid.code) for xid in host.xids if xid.code in DRAINING_XIDS}
    for pci, code in sorted(found):
        yield Finding(
            what=f"GPU {pci}: Xid {code} since boot",
            next_step="drain the host and reboot it; replace the card if it comes back",
        )
