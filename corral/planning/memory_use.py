"""Memory of a host as planned: what each instance takes of each GPU and of host memory. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from corral.fit.answer import reserve_mib
from corral.fit.estimate import DRIVER_MIB
from corral.plan.host import HostPlan
from corral.plan.instance import InstancePlan
from corral.plan.placement import DeviceNeed
from corral.schema import Frozen

_GIB_MIB = 1024
# Memory is sold in such steps.
_STEP_GIB = 16


class MemoryPart(Frozen):
    """What one instance takes of a device: weights and KV cache exact, the rest upper bounds."""

    instance: str = Field(description="name of the instance")
    weights_mib: int = Field(description="weights; in host memory also mapped ones")
    kv_mib: int = Field(description="KV cache")
    compute_mib: int = Field(description="compute buffers, at most")
    runtime_mib: int = Field(description="CUDA context and other fixed parts, at most")
    total_mib: int = Field(description="sum, or the share that the engine takes in any case")


class DeviceMemory(Frozen):
    """One GPU, or host memory."""

    device: str = Field(description='"GPU 0", "GPU GPU-..." or "host"')
    memory_mib: int | None = Field(description="its memory; null: not known")
    kept_mib: int = Field(description="taken by driver or kernel")
    parts: tuple[MemoryPart, ...] = Field(description="instances on it")
    sum_mib: int = Field(description="sum of the parts; weights that two of them map count once")
    free_mib: int | None = Field(description="what stays free, at least; null: not known")


class UnknownNeed(Frozen):
    """An instance whose need is not known, or not whole."""

    instance: str = Field(description="name of the instance")
    reason: str = Field(description="why")


class HostMemory(Frozen):
    """Memory of a host as planned."""

    version: Literal[1] = 1
    host: str = Field(description="name of the host")
    devices: tuple[DeviceMemory, ...] = Field(description="GPUs in order, then host memory")
    unknown: tuple[UnknownNeed, ...] = Field(description="needs that are not in the sums")
    advice: tuple[str, ...] = Field(description="about host memory, one sentence each")


def memory_use(plan: HostPlan, gpu_memory_mib: int | None) -> HostMemory:
    """The memory of a host by device; ``gpu_memory_mib``: of each of its GPUs, if known."""
    unknown = tuple(
        UnknownNeed(instance=one.name, reason=one.need.unknown)
        for one in plan.instances
        if one.need.unknown
    )
    without = {one.instance for one in unknown}
    gpus = [_gpu(name, plan.instances, gpu_memory_mib, without) for name in _gpu_names(plan)]
    host = _host(plan, without)
    return HostMemory(
        host=plan.host,
        devices=(*gpus, host),
        unknown=unknown,
        advice=tuple(_advice(plan, host)),
    )


def _gpu_names(plan: HostPlan) -> list[int | str]:
    """All GPUs by index, and those that instances name by UUID instead."""
    named = list(dict.fromkeys(gpu for one in plan.instances for gpu in one.gpus))
    by_uuid = [gpu for gpu in named if isinstance(gpu, str)]
    if by_uuid and len(by_uuid) == len(named):
        return [*by_uuid]
    count = plan.gpus.count if plan.gpus else 0
    return [*range(count), *by_uuid]


def _gpu(
    name: int | str,
    instances: Sequence[InstancePlan],
    memory_mib: int | None,
    without: set[str],
) -> DeviceMemory:
    users = [one for one in instances if name in one.gpus]
    parts = [_part(one, one.need.gpus[one.gpus.index(name)]) for one in users if one.need.gpus]
    total_mib = sum(part.total_mib for part in parts)
    known = memory_mib is not None and not any(one.name in without for one in users)
    return DeviceMemory(
        device=f"GPU {name}",
        memory_mib=memory_mib,
        kept_mib=DRIVER_MIB,
        parts=tuple(parts),
        sum_mib=total_mib,
        free_mib=memory_mib - DRIVER_MIB - total_mib if known and memory_mib else None,
    )


def _host(plan: HostPlan, without: set[str]) -> DeviceMemory:
    parts = [_part(one, one.need.host) for one in plan.instances if one.need.host]
    own_mib, mapped_mib = _own_mib(plan), _mapped_mib(plan)
    memory_mib = plan.memory_gib * _GIB_MIB if plan.memory_gib else None
    kept_mib = reserve_mib(memory_mib) if memory_mib else 0
    free_mib = None
    if memory_mib and not without:
        free_mib = memory_mib - kept_mib - own_mib - mapped_mib
    return DeviceMemory(
        device="host",
        memory_mib=memory_mib,
        kept_mib=kept_mib,
        parts=tuple(parts),
        sum_mib=own_mib + mapped_mib,
        free_mib=free_mib,
    )


def _part(instance: InstancePlan, need: DeviceNeed) -> MemoryPart:
    return MemoryPart(
        instance=instance.name,
        weights_mib=need.weights_mib,
        kv_mib=need.kv_mib,
        compute_mib=need.compute_mib,
        runtime_mib=need.runtime_mib,
        total_mib=max(need.total_mib, need.reserved_mib),
    )


def _own_mib(plan: HostPlan) -> int:
    """Host memory that the kernel cannot evict: all but mapped weights."""
    needs = [(one, one.need.host) for one in plan.instances if one.need.host]
    return sum(
        need.total_mib - (need.weights_mib if one.weights_mapped else 0) for one, need in needs
    )


def _mapped_mib(plan: HostPlan) -> int:
    """Mapped weights in host memory; a file is counted once for all servers that map it."""
    mapped: dict[tuple[str, ...], int] = {}
    for one in plan.instances:
        if one.need.host and one.weights_mapped:
            counted = mapped.get(one.shards, 0)
            mapped[one.shards] = max(counted, one.need.host.weights_mib)
    return sum(mapped.values())


def _advice(plan: HostPlan, host: DeviceMemory) -> Iterator[str]:
    own_mib, mapped_mib = _own_mib(plan), _mapped_mib(plan)
    if not host.parts:
        return
    wanted_gib = _enough_gib(own_mib + mapped_mib)
    cache = f", {_gib(mapped_mib)} more keep mapped weights in memory" if mapped_mib else ""
    yield f"the servers need {_gib(own_mib)} of host memory{cache}: {wanted_gib} GiB is enough"
    if plan.memory_gib is None:
        yield '"memory_gib" of the host is not in the inventory: nothing is compared with it'
    elif host.free_mib is not None and host.free_mib < 0:
        yield (
            f"memory_gib is {plan.memory_gib}: weights will be read from disk again and again; "
            "add memory, choose a smaller quant, or more layers on GPUs"
        )


def _enough_gib(needed_mib: int) -> int:
    """The least memory, in usual steps, that leaves the kernel what it needs."""
    gib = _STEP_GIB
    while gib * _GIB_MIB - reserve_mib(gib * _GIB_MIB) < needed_mib:
        gib += _STEP_GIB
    return gib


def _gib(mib: int) -> str:
    return f"{mib / _GIB_MIB:.1f} GiB"
