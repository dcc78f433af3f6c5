"""Use of GPUs: memory, utilization, temperature, and what instances hold of what was predicted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from corral.cli.documents import without
from corral.host.answers import GpuHolder, GpuUse, ObservedInstance, ObservedInstances
from corral.inventory.hosts import Host
from corral.planning.stored_plans import stored_plan
from corral.schema import Frozen
from corral.terminal import Rows, coloured

if TYPE_CHECKING:
    from corral.host.answers import GpuUse as GpuRow
    from corral.host.answers import ObservedInstance as InstanceRow
else:
    InstanceRow = without(ObservedInstance, "plan")
    GpuRow = without(GpuUse, "units", holders=list[GpuHolder])


class HostStatus(Frozen):
    """What `corral status` says of a host."""

    instances: dict[str, InstanceRow]
    gpus: list[GpuRow]
    gpu_problem: str


def gpu_table(hosts: Mapping[str, tuple[Host, ObservedInstances]]) -> Rows:
    """One row for each GPU of each host."""
    table = Rows("host", "GPU", "name", "memory", "use", "temperature", "held by")
    for name, (host, found) in hosts.items():
        for gpu in gpu_rows(host, found):
            holders = ", ".join(map(_holder, gpu["holders"])) or "nobody"
            table.add(
                name,
                str(gpu["index"]),
                gpu["name"] or "unknown",
                _of(gpu["memory_used_mib"], gpu["memory_total_mib"]),
                _with(gpu["utilization_percent"], " %"),
                _with(gpu["temperature_celsius"], " C"),
                holders,
            )
        if found.gpu_problem:
            table.add(name, "", coloured(found.gpu_problem, "red"))
    return table


def gpu_rows(host: Host, found: ObservedInstances) -> list[dict[str, Any]]:
    """The GPUs of a host as JSON, each with its holders."""
    predicted = _predicted(host, found)
    return [
        {
            **gpu.model_dump(exclude={"units"}),
            "holders": list(_holders(gpu, found, predicted)),
        }
        for gpu in found.gpus
    ]


def _holders(
    gpu: GpuUse, found: ObservedInstances, predicted: Mapping[tuple[str, int | str], int]
) -> Iterator[dict[str, Any]]:
    """Whoever holds memory of a GPU, and instances that were predicted to."""
    names = {one.unit: name for name, one in found.instances.items()}
    keys = {gpu.index, gpu.uuid or ""}
    needs = {name: mib for (name, on), mib in predicted.items() if on in keys}
    for unit, held_mib in gpu.units.items():
        name = names.get(unit)
        row = {"instance": name, "unit": unit, "held_mib": held_mib}
        yield {**row, "predicted_mib": needs.pop(name, None) if name else None}
    for name, mib in needs.items():
        unit = found.instances[name].unit
        yield {"instance": name, "unit": unit, "held_mib": 0, "predicted_mib": mib}


def _predicted(host: Host, found: ObservedInstances) -> dict[tuple[str, int | str], int]:
    """Instance and GPU (index or UUID) -> MiB that its installed plan says."""
    kept = stored_plan(host, {name: one.plan for name, one in found.instances.items() if one.plan})
    return {
        (one.name, gpu): need.total_mib
        for one in kept.instances
        for gpu, need in zip(one.gpus, one.need.gpus, strict=False)
    }


def _holder(holder: Mapping[str, Any]) -> str:
    held = "some" if holder["held_mib"] is None else f"{holder['held_mib']:,}"
    predicted = holder["predicted_mib"]
    of = "" if predicted is None else f" of {predicted:,}"
    return f"{holder['instance'] or holder['unit']} {held}{of} MiB"


def _of(used: int | None, total: int | None) -> str:
    return f"{_with(used)} of {_with(total, ' MiB')}"


def _with(value: int | None, unit: str = "") -> str:
    return "unknown" if value is None else f"{value:,}{unit}"
