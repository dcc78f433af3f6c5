"""Compare the host memory of an inventory with what instances need. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.plan.instance import InstancePlan

_MIB_OF_GIB = 1024


def refuse_full_memory(host: Host, instances: Sequence[InstancePlan]) -> None:
    """Raises CorralError where the exact need of instances exceeds ``memory_gib`` of the host.

    Mapped weights do not count: the kernel can evict them. Upper bounds are proved on the host.
    """
    if host.spec.memory_gib is None:
        return
    exact_mib = {one.name: _exact_mib(one) for one in instances if one.need.host}
    needed_mib = sum(exact_mib.values())
    if needed_mib <= host.spec.memory_gib * _MIB_OF_GIB:
        return
    parts = ", ".join(f"{name} {mib / _MIB_OF_GIB:.1f}" for name, mib in exact_mib.items() if mib)
    what = (
        f"weights and KV cache in host memory are {needed_mib / _MIB_OF_GIB:.1f} GiB ({parts}), "
        f"memory_gib is {host.spec.memory_gib}"
    )
    step = "lower contexts, choose smaller quants, or correct memory_gib in the inventory"
    raise CorralError(host.name, what, step)


def _exact_mib(instance: InstancePlan) -> int:
    need = instance.need.host
    if need is None:
        return 0
    return need.kv_mib + (0 if instance.weights_mapped else need.weights_mib)
