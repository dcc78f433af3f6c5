"""Memory before any change: what is known exactly must be there; what is odd is said. Pure.

Weights and KV cache are exact and stop a host that lacks the memory for them. Compute buffers are
bounds: whether they fit is proved later, by the engine's own count.
"""

from __future__ import annotations

from collections.abc import Iterator

from corral.findings import Finding
from corral.fit.answer import LEAST_MAPPED_MIB, reserve_mib
from corral.fit.estimate import DRIVER_MIB
from corral.host.state import Gpu, GpuHost, HostState
from corral.plan.host import HostPlan
from corral.plan.instance import InstancePlan

# Idle memory beside experts on the host is worth a word when it is this much.
_IDLE_SHARE = 0.25
# Firmware and the kernel itself keep some of what is built in.
_LEAST_MEMORY = 0.9


def fit_findings(plan: HostPlan, state: HostState) -> list[Finding]:
    """Findings that stop, and advice; none for instances whose need is unknown but a word."""
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
                what=f"{instance.name}: what it needs is not known: {instance.need.unknown}",
                next_step="if the deploy stops at the fit proof, fix that first",
                stops=False,
            )


def _described(plan: HostPlan, host: GpuHost) -> Iterator[Finding]:
    """The plan was made for a host with more memory than is there."""
    found_mib, described = host.memory.total_mib, plan.memory_gib
    if found_mib and described and found_mib < described * 1024 * _LEAST_MEMORY:
        yield Finding(
            what=f"the host has {_gib(found_mib)} of memory, memory_gib = {described} is described",
            next_step="correct memory_gib in the inventory, or look for memory that is missing",
            stops=False,
        )


def _gpu(plan: HostPlan, host: GpuHost, gpu: Gpu) -> Iterator[Finding]:
    users = [i for i in plan.instances if _position(i, gpu) is not None and i.need.gpus]
    if not users or gpu.memory_total_mib is None:
        return
    strangers_mib = _strangers_mib(plan, host, gpu)
    there_mib = gpu.memory_total_mib - DRIVER_MIB - strangers_mib
    exact_mib = sum(i.need.gpus[_position(i, gpu) or 0].exact_mib for i in users)
    total_mib = sum(i.need.gpus[_position(i, gpu) or 0].total_mib for i in users)
    names = ", ".join(i.name for i in users)
    beside = f" beside {_gib(strangers_mib)} that others hold" if strangers_mib else ""
    if exact_mib > there_mib:
        yield Finding(
            what=f"GPU {gpu.index}: weights and KV cache of {names} are {_gib(exact_mib)}, "
            f"{_gib(there_mib)} is there{beside}",
            next_step='choose placement = "auto", a smaller context or a smaller quant, '
            f"or free the GPU (`corral fit MODEL --host {plan.host}` lists what fits)",
        )
    elif total_mib > there_mib:
        yield Finding(
            what=f"GPU {gpu.index}: {names} may need {_gib(total_mib)}, {_gib(there_mib)} is "
            f"there{beside}",
            next_step="the fit proof decides; a smaller ubatch_tokens needs less to compute",
            stops=False,
        )
    elif there_mib - total_mib > _IDLE_SHARE * gpu.memory_total_mib:
        yield from _idle(users, gpu, there_mib - total_mib)


def _idle(users: list[InstancePlan], gpu: Gpu, free_mib: int) -> Iterator[Finding]:
    for instance in users:
        if _keeps_weights_on_host(instance):
            yield Finding(
                what=f"{instance.name}: {_gib(free_mib)} of GPU {gpu.index} stay idle while "
                "weights that could be there are on the host",
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
            f"{_gib(total_mib)} is there",
            next_step="lower prompt_cache_mib, contexts kept on the host, or instances",
        )
    elif mapped_mib >= LEAST_MAPPED_MIB and own_mib + mapped_mib > total_mib - reserve_mib(
        total_mib
    ):
        yield Finding(
            what=f"{_gib(mapped_mib)} of weights are read from host memory, which is "
            f"{_gib(total_mib)}: with {_gib(own_mib)} for the servers themselves they will be "
            "read from the disk again and again",
            next_step='add memory, choose a smaller quant, or placement = "auto" on larger GPUs',
            stops=False,
        )


def _mapped_mib(plan: HostPlan) -> int:
    """Weights read from host memory: a file is there once, however many servers read it."""
    mapped: dict[tuple[str, ...], int] = {}
    for instance in plan.instances:
        if instance.need.host:
            before = mapped.get(instance.shards, 0)
            mapped[instance.shards] = max(before, instance.need.host.weights_mib)
    return sum(mapped.values())


def _strangers_mib(plan: HostPlan, host: GpuHost, gpu: Gpu) -> int:
    """What processes hold that are none of the planned instances."""
    own = {instance.unit for instance in plan.instances}
    held = [p for p in host.processes if p.gpu == gpu.uuid and p.unit not in own]
    return sum(process.used_mib or 0 for process in held)


def _position(instance: InstancePlan, gpu: Gpu) -> int | None:
    """The GPU's place in the instance's set."""
    for position, name in enumerate(instance.gpus):
        if name in (gpu.index, gpu.uuid):
            return position
    return None


def _keeps_weights_on_host(instance: InstancePlan) -> bool:
    placement = instance.placement
    kept = placement.experts_on_cpu or placement.cpu_moe_layers or placement.tensor_overrides
    return bool(kept) or placement.gpu_layers not in ("all", 0)


def _gib(mib: int) -> str:
    return f"{mib / 1024:.1f} GiB"
