"""Target GPUs of `corral fit`: GPUs by name, or those of a host as they are now."""

from __future__ import annotations

import re

from corral.catalog.entries import Catalog
from corral.errors import CorralError
from corral.fit.answer import TargetGpu
from corral.fit.estimate import DRIVER_MIB
from corral.host.state import Gpu, GpuHost
from corral.inventory.hosts import Host

_SEVERAL = re.compile(r"([1-9][0-9]?)\s*x\s*(.+)", re.IGNORECASE)


def named_targets(catalog: Catalog, wanted: tuple[str, ...]) -> list[TargetGpu]:
    """GPUs by their names, such as "A100 40GB" or "4 x H200". Raises CorralError."""
    names: list[str] = []
    for text in wanted:
        several = _SEVERAL.fullmatch(text.strip())
        names += [several[2]] * int(several[1]) if several else [text]
    memory_mib = [catalog.gpu(name, where="--gpu").memory_mib for name in names]
    return [TargetGpu(f"GPU {number}", mib) for number, mib in enumerate(memory_mib)]


def host_targets(host: Host, found: GpuHost, profile: str | None) -> list[TargetGpu]:
    """GPUs of a host with their current memory.

    Memory of an instance with this ``profile`` counts as free, as that instance would be replaced.
    Raises CorralError for a GPU whose memory is unknown.
    """
    units = {f"corral-{i.name}.service" for i in host.spec.instances if i.profile == profile}
    return [_target(gpu, found, units) for gpu in found.gpus]


def _target(gpu: Gpu, found: GpuHost, replaced_units: set[str]) -> TargetGpu:
    if gpu.memory_total_mib is None or gpu.memory_free_mib is None:
        raise CorralError(f"GPU {gpu.index}", gpu.problem or "its memory is unknown", "fix it")
    own_mib = sum(
        process.used_mib or 0
        for process in found.processes
        if process.gpu == gpu.uuid and process.unit in replaced_units
    )
    used_mib = gpu.memory_total_mib - gpu.memory_free_mib - DRIVER_MIB - own_mib
    return TargetGpu(f"GPU {gpu.index}", gpu.memory_total_mib, max(used_mib, 0))
