"""Checks of GPUs in preflight: present, as described, healthy. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from corral.findings import Finding
from corral.host.state import Gpu, GpuHost
from corral.inventory.hosts import GpuKind, GpuSpec
from corral.plan.host import HostPlan

# After these a GPU gives wrong answers or none: 48 and 95 are uncorrectable memory errors, 94 is
# a contained one, 79 is a GPU that fell off the bus. Source: NVIDIA's "XID Errors".
DRAINING_XIDS = frozenset({48, 79, 94, 95})
# ECC and firmware reserve a part of a card's memory: measured 40442 of a nominal 40960 MiB.
_LEAST_MEMORY = 0.9


def gpu_findings(plan: HostPlan, host: GpuHost) -> list[Finding]:
    """Findings that block serving on the planned GPUs; empty for a host without any."""
    if plan.gpus is None:
        return []
    return [
        *_count(plan.gpus, host),
        *_sets(plan, host),
        *_order(plan.gpus, host),
        *_memory(plan.gpus, host),
        *_modes(plan, host),
        *_health(host),
    ]


def bus_findings(plan: HostPlan, host: GpuHost) -> Iterator[Finding]:
    """Findings about GPUs before their driver runs."""
    found = len(host.pci_gpus)
    if plan.gpus and found < plan.gpus.count:
        yield Finding(
            what=f"{plan.gpus.count} GPUs planned, the PCI bus shows {found}",
            next_step="check the cards, or describe the host's real GPUs in the inventory",
        )


def _count(spec: GpuSpec, host: GpuHost) -> Iterator[Finding]:
    counts: dict[str | None, int] = {}
    for kind in spec.each_kind:
        known = counts.get(kind.compute_capability, 0)
        counts[kind.compute_capability] = known + kind.count
    for capability, count in counts.items():
        yield from _count_of(capability, count, host)


def _count_of(capability: str | None, count: int, host: GpuHost) -> Iterator[Finding]:
    fitting = [gpu for gpu in host.gpus if gpu.compute_capability == capability]
    if len(fitting) < count:
        names = ", ".join(f"{gpu.name} ({gpu.compute_capability})" for gpu in host.gpus)
        reported = "; ".join(filter(None, [names, host.problem])) or "none"
        planned = f"{count} GPUs of compute capability {capability} planned"
        bus = "" if host.gpus or host.pci_gpus else "; the PCI bus shows no NVIDIA GPU"
        yield Finding(
            what=f"{planned}, nvidia-smi reports: {reported}{bus}",
            next_step="check the card and its driver on the host, or describe the host's real "
            "GPUs in the inventory",
        )


def _sets(plan: HostPlan, host: GpuHost) -> Iterator[Finding]:
    known = {gpu.index for gpu in host.gpus} | {gpu.uuid for gpu in host.gpus}
    # Without any GPU, only that is reported.
    for instance in plan.instances if host.gpus else ():
        for missing in [gpu for gpu in instance.gpus if gpu not in known]:
            present = ", ".join(f"{gpu.index} ({gpu.uuid})" for gpu in host.gpus)
            yield Finding(
                what=f"{instance.name}: GPU {missing} is missing; nvidia-smi shows {present}",
                next_step="name another in the instance's gpus, or fix the host",
            )


def _kind_of(spec: GpuSpec, gpu: Gpu) -> GpuKind | None:
    """The kind that the inventory has for a GPU, by its index; None for one beyond them."""
    numbers = [kind for kind in spec.each_kind for _ in range(kind.count)]
    return numbers[gpu.index] if gpu.index < len(numbers) else None


def _order(spec: GpuSpec, host: GpuHost) -> Iterator[Finding]:
    """Instances name GPUs by index: kinds must be in the order of nvidia-smi."""
    for gpu in host.gpus if spec.kinds else ():
        kind = _kind_of(spec, gpu)
        if kind and gpu.compute_capability and kind.compute_capability != gpu.compute_capability:
            yield Finding(
                what=f"GPU {gpu.index} is {gpu.name} ({gpu.compute_capability}), the inventory has "
                f"{kind.name} ({kind.compute_capability}) there",
                next_step="list the kinds of gpus in the order of nvidia-smi",
            )


def _memory(spec: GpuSpec, host: GpuHost) -> Iterator[Finding]:
    for gpu in host.gpus:
        kind = _kind_of(spec, gpu) if spec.kinds else spec
        total, described = gpu.memory_total_mib, kind.memory_mib if kind else None
        if total and described and total < described * _LEAST_MEMORY:
            yield Finding(
                what=f"GPU {gpu.index} has {total} MiB, the inventory has {described} MiB",
                next_step="correct gpus.memory_mib in the inventory",
            )


def _modes(plan: HostPlan, host: GpuHost) -> Iterator[Finding]:
    """Modes in which a GPU is not one whole GPU for several processes."""
    named = {gpu for instance in plan.instances for gpu in instance.gpus}
    for gpu in host.gpus:
        if named and not named & {gpu.index, gpu.uuid}:
            continue
        if gpu.mig_mode == "Enabled":
            yield Finding(
                what=f"GPU {gpu.index} is in MIG mode: Corral plans whole GPUs, a server would get "
                "one slice",
                next_step=f"on the host `nvidia-smi -i {gpu.index} -mig 0`, or name other GPUs in "
                "the gpus of its instances",
            )
        if gpu.compute_mode not in (None, "Default"):
            yield Finding(
                what=f"GPU {gpu.index} is in compute mode {gpu.compute_mode}: beside a server no "
                "other process may use it, so fit proofs and activations side by side would fail",
                next_step=f"on the host `nvidia-smi -i {gpu.index} -c DEFAULT`",
            )


def _health(host: GpuHost) -> Iterator[Finding]:
    """Faults of all GPUs, used or not: one faulty GPU can bring down the driver."""
    for gpu in host.gpus:
        if fault := _fault(gpu):
            yield Finding(
                what=f"GPU {gpu.index} ({gpu.pci}): {fault}",
                next_step="drain the host, then reset the GPU (nvidia-smi --gpu-reset) or reboot; "
                "replace the card if it comes back",
            )
    for pci in host.lost:
        yield Finding(what=f"GPU {pci} is lost: {host.problem}", next_step="reboot the host")
    yield from _xids(host)


def _fault(gpu: Gpu) -> str:
    if gpu.problem:
        return f"nvidia-smi reports {gpu.problem}"
    if gpu.ecc_uncorrected:
        return f"{gpu.ecc_uncorrected} uncorrectable memory errors since the driver was loaded"
    return ""


def _xids(host: GpuHost) -> Iterator[Finding]:
    if host.xids_unreadable:
        yield Finding(
            what=f"the kernel log cannot be read for Xid errors: {host.xids_unreadable}",
            next_step="check that `journalctl -k` shows the kernel's messages on the host",
        )
    draining = {(xid.pci, xid.code) for xid in host.xids if xid.code in DRAINING_XIDS}
    for pci, code in sorted(draining):
        yield Finding(
            what=f"GPU {pci}: Xid {code} since boot",
            next_step="drain the host and reboot it; replace the card if it comes back",
        )
