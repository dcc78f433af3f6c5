"""Memory of a host as `corral plan` prints it."""

from __future__ import annotations

from collections.abc import Iterator

from corral.cli.views.fit import aligned, gib
from corral.planning.memory_use import DeviceMemory, HostMemory

_HEADS = ("device", "instance", "weights", "KV", "compute", "runtime", "sum", "of", "free")


def memory_lines(found: HostMemory) -> Iterator[str]:
    """A row for each part of a device, and one for its sum; then what is unknown, and advice."""
    rows = [row for device in found.devices for row in _rows(device)]
    yield "memory, GiB; weights and KV are exact, the rest are upper bounds"
    yield from (f"  {line}" for line in aligned([_HEADS, *rows]))
    yield from (f"  {one.instance}: its need is unknown: {one.reason}" for one in found.unknown)
    yield from (f"  {advice}" for advice in found.advice)


def _rows(device: DeviceMemory) -> Iterator[tuple[str, ...]]:
    for part in device.parts:
        sizes = (part.weights_mib, part.kv_mib, part.compute_mib, part.runtime_mib, part.total_mib)
        yield (device.device, part.instance, *map(gib, sizes), "", "")
    kept = (("driver or kernel", gib(device.kept_mib)),) if device.kept_mib else ()
    for name, size in kept:
        yield (device.device, name, "", "", "", "", size, "", "")
    total = gib(device.sum_mib + device.kept_mib)
    yield (device.device, "all", "", "", "", "", total, *map(_known, _of(device)))


def _of(device: DeviceMemory) -> tuple[int | None, int | None]:
    return device.memory_mib, device.free_mib


def _known(mib: int | None) -> str:
    return "?" if mib is None else gib(mib)
