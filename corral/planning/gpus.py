"""The GPUs of a host, completed from the catalog by their names."""

from __future__ import annotations

from collections.abc import Iterable

from corral.catalog.entries import Catalog, Gpu
from corral.errors import CorralError
from corral.inventory.hosts import GpuKind, GpuSpec, Host
from corral.nvidia import versions


def with_capability(host: Host, catalog: Catalog) -> Host:
    """The host with the compute capabilities of its GPUs, from the inventory or the catalog.

    Raises CorralError where neither has it.
    """
    gpus = host.spec.gpus
    if gpus is None:
        return host
    found = [_capability(kind, catalog, f"{host.name}: gpus") for kind in gpus.each_kind]
    pairs = zip(gpus.kinds, found, strict=False)
    completed = gpus.model_copy(
        update={
            "compute_capability": min(found, key=versions.key),
            "kinds": tuple(k.model_copy(update={"compute_capability": c}) for k, c in pairs),
        }
    )
    return host.model_copy(update={"spec": host.spec.model_copy(update={"gpus": completed})})


def _capability(kind: GpuKind, catalog: Catalog, where: str) -> str:
    if kind.compute_capability:
        return kind.compute_capability
    known = _known(kind, catalog)
    if known is None:
        names = ", ".join(sorted(name for gpu in catalog.gpus.values() for name in gpu.short_names))
        what = f'no GPU of catalog/gpus/ is named "{kind.name}" (known: {names or "none"})'
        step = 'add "compute_capability" to "gpus" of the host, or name one of them'
        raise CorralError(where, what, step)
    return known.compute_capability


def gpu_memory_mib(host: Host, catalog: Catalog, kinds: Iterable[int] | None = None) -> int | None:
    """Memory of each GPU, from the inventory or, by its name, from the catalog.

    + kinds: numbers of kinds; all if None. Of several kinds that of the smallest GPU counts
    """
    if host.spec.gpus is None:
        return None
    named = host.spec.gpus.each_kind
    wanted = named if kinds is None else [named[number] for number in kinds]
    found = [_memory_mib(kind, catalog) for kind in wanted]
    known = [mib for mib in found if mib is not None]
    return min(known) if known and len(known) == len(found) else None


def _memory_mib(kind: GpuKind, catalog: Catalog) -> int | None:
    known = _known(kind, catalog)
    return kind.memory_mib or (known.memory_mib if known else None)


def _known(kind: GpuKind, catalog: Catalog) -> Gpu | None:
    return next((gpu for gpu in catalog.gpus.values() if gpu.is_called(kind.name)), None)


def together(sets: Iterable[frozenset[int]]) -> list[frozenset[int]]:
    """Sets of kinds, those joined that have a kind in common: they share memory."""
    found: list[frozenset[int]] = []
    for one in sets:
        joined = frozenset(one).union(*(other for other in found if other & one))
        found = [*(other for other in found if not other & one), joined]
    return found


def capabilities(gpus: GpuSpec) -> tuple[str, ...]:
    """Each compute capability of a host's GPUs once, the lowest first."""
    found = {kind.compute_capability for kind in gpus.each_kind if kind.compute_capability}
    return tuple(sorted(found, key=versions.key))
