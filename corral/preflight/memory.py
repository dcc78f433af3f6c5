"""Checks of memory in preflight: too little blocks, doubts are advice. Pure.

Weights and KV cache are exact and block a host without the memory for them. Compute buffers are
upper bounds: the fit proof decides later, by the engine's own count.
"""

from __future__ import annotations

from collections.abc import Iterator

from corral.findings import Finding
from corral.fit.answer import LEAST_MAPPED_MIB, reserve_mib
from corral.fit.estimate import DRIVER_MIB
from corral.host.state import Gpu, GpuHost, HostState
from corral.plan.host import HostPlan
from corral.plan.instance import InstancePlan

# Idle GPU memory beside experts in host memory is reported from this share on.
_IDLE_SHARE = 0.25
# Firmware and the kernel reserve a part of the installed memory.
_LEAST_MEMORY = 0.9
_SMALLER = 'choose placement = "auto", a smaller context or a smaller quant'
# An engine that takes a share of a GPU takes no less with a smaller context.
_SHARE = "lower gpu_memory_utilization"


def fit_findings(plan: HostPlan, state: HostState) -> list[Finding]:
    """Findings about memory; an instance with an unknown need gets advice only."""
    host = state.gpu_host
    return [
        *_unknown(plan, state),
        *_described(plan, host),
        *(finding for gpu in host.gpus for finding in _gpu(plan, host, gpu)),
        *_memory(plan, host),
    ]


def _unknown(plan: HostPlan, state: HostState) -> Iterator[Finding]:
    for instance in plan.instances:
        found = state.instances.get(instance.name)
        if instance.need.unknown and not (found and found.serves):
            yield Finding(
                what=f"{instance.name}: its memory need is unknown: {instance.need.unknown}",
                next_step="if the deploy stops at the fit proof, fix that first",
                stops=False,
            )


def _described(plan: HostPlan, host: GpuHost) -> Iterator[Finding]:
    """Advice where the host has less memory than the inventory describes."""
    found_mib, described = host.memory.total_mib, plan.memory_gib
    if found_mib and described and found_mib < described * 1024 * _LEAST_MEMORY:
        yield Finding(
            what=f"the host has {_gib(found_mib)} of memory, the inventory has memory_gib = "
            f"{described}",
            next_step="correct memory_gib in the inventory, or check the host's memory",
            stops=False,
        )


def _gpu(plan: HostPlan, host: GpuHost, gpu: Gpu) -> Iterator[Finding]:
    users = [i for i in plan.instances if _position(i, gpu) is not None and i.need.gpus]
    if not users or gpu.memory_total_mib is None:
        return
    foreign_mib = _foreign_mib(plan, host, gpu)
    available_mib = gpu.memory_total_mib - DRIVER_MIB - foreign_mib
    exact_mib = sum(i.need.gpus[_position(i, gpu) or 0].exact_mib for i in users)
    total_mib = sum(i.need.gpus[_position(i, gpu) or 0].total_mib for i in users)
    names = ", ".join(i.name for i in users)
    reserves = any(i.need.gpus[_position(i, gpu) or 0].reserved_mib for i in users)
    beside = f" beside {_gib(foreign_mib)} of other processes" if foreign_mib else ""
    if exact_mib > available_mib:
        yield Finding(
            what=f"GPU {gpu.index}: {_what_is_exact(names, reserves=reserves)} {_gib(exact_mib)}, "
            f"{_gib(available_mib)} is available{beside}",
            next_step=f"{_SHARE if reserves else _SMALLER}, or free the GPU "
            f"(`corral fit MODEL --host {plan.host}` lists what fits)",
        )
    elif total_mib > available_mib:
        yield Finding(
            what=f"GPU {gpu.index}: {names} may need {_gib(total_mib)}, {_gib(available_mib)} is "
            f"available{beside}",
            next_step="the fit proof decides; a smaller ubatch_tokens needs less memory",
            stops=False,
        )
    elif available_mib - total_mib > _IDLE_SHARE * gpu.memory_total_mib:
        yield from _idle(users, gpu, available_mib - total_mib)


def _what_is_exact(names: str, *, reserves: bool) -> str:
    return f"the share of {names} is" if reserves else f"weights and KV cache of {names} are"


def _idle(users: list[InstancePlan], gpu: Gpu, free_mib: int) -> Iterator[Finding]:
    for instance in users:
        if _keeps_weights_on_host(instance):
            yield Finding(
                what=f"{instance.name}: {_gib(free_mib)} of GPU {gpu.index} stay idle while "
                "weights that would fit there are in host memory",
                next_step=f'set placement = "auto" in profile {instance.profile}',
                stops=False,
            )


def _memory(plan: HostPlan, host: GpuHost) -> Iterator[Finding]:
    total_mib = host.memory.total_mib
    needs = [i.need.host for i in plan.instances if i.need.host]
    if not needs or not total_mib:
        return
    own_mib = sum(need.total_mib - need.weights_mib for need in needs)
    mapped_mib = _mapped_mib(plan)
    if own_mib > total_mib:
        yield Finding(
            what=f"the instances need {_gib(own_mib)} of host memory beside their weights, "
            f"the host has {_gib(total_mib)}",
            next_step="lower prompt_cache_mib or contexts in host memory, or remove instances",
        )
    elif mapped_mib >= LEAST_MAPPED_MIB and own_mib + mapped_mib > total_mib - reserve_mib(
        total_mib
    ):
        yield Finding(
            what=f"{_gib(mapped_mib)} of weights are read from host memory of {_gib(total_mib)}: "
            f"with {_gib(own_mib)} for the servers themselves, weights will be read from disk "
            "again and again",
            next_step='add memory, choose a smaller quant, or placement = "auto" on larger GPUs',
            stops=False,
        )


def _mapped_mib(plan: HostPlan) -> int:
    """Weights read from host memory; a file is counted once for all servers that read it."""
    mapped: dict[tuple[str, ...], int] = {}
    for instance in plan.instances:
        if instance.need.host:
            counted = mapped.get(instance.shards, 0)
            mapped[instance.shards] = max(counted, instance.need.host.weights_mib)
    return sum(mapped.values())


def _foreign_mib(plan: HostPlan, host: GpuHost, gpu: Gpu) -> int:
    """GPU memory of processes that are not planned instances."""
    own = {instance.unit for instance in plan.instances}
    foreign = [p for p in host.processes if p.gpu == gpu.uuid and p.unit not in own]
    return sum(process.used_mib or 0 for process in foreign)


def _position(instance: InstancePlan, gpu: Gpu) -> int | None:
    """The GPU's position in the instance's GPU set, or None."""
    for position, name in enumerate(instance.gpus):
        if name in (gpu.index, gpu.uuid):
            return position
    return None


def _keeps_weights_on_host(instance: InstancePlan) -> bool:
    placement = instance.placement
    overrides = placement.experts_on_cpu or placement.cpu_moe_layers or placement.tensor_overrides
    return bool(overrides) or placement.gpu_layers not in ("all", 0)


def _gib(mib: int) -> str:
    return f"{mib / 1024:.1f} GiB"
