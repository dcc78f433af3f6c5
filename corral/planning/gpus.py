"""The GPUs of a host, completed from the catalog by their name."""

from __future__ import annotations

from corral.catalog.entries import Catalog
from corral.errors import CorralError
from corral.inventory.hosts import Host


def with_capability(host: Host, catalog: Catalog) -> Host:
    """The host with the compute capability of its GPUs, from the inventory or the catalog.

    Raises CorralError where neither has it.
    """
    gpus = host.spec.gpus
    if gpus is None or gpus.compute_capability:
        return host
    known = next((gpu for gpu in catalog.gpus.values() if gpu.is_called(gpus.name)), None)
    if known is None:
        names = ", ".join(sorted(name for gpu in catalog.gpus.values() for name in gpu.short_names))
        what = f'no GPU of catalog/gpus/ is named "{gpus.name}" (known: {names or "none"})'
        step = 'add "compute_capability" to "gpus" of the host, or name one of them'
        raise CorralError(f"{host.name}: gpus", what, step)
    completed = gpus.model_copy(update={"compute_capability": known.compute_capability})
    return host.model_copy(update={"spec": host.spec.model_copy(update={"gpus": completed})})


def gpu_memory_mib(host: Host, catalog: Catalog) -> int | None:
    """Memory of each GPU, from the inventory or, by its name, from the catalog."""
    if host.spec.gpus is None:
        return None
    name = host.spec.gpus.name
    known = next((gpu for gpu in catalog.gpus.values() if gpu.is_called(name)), None)
    return host.spec.gpus.memory_mib or (known.memory_mib if known else None)
