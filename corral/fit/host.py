"""Several instances on the GPUs of one host: each placed, all added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from corral.catalog.entries import EngineKind
from corral.catalog.profile import Profile
from corral.engines import engine_module
from corral.errors import CorralError
from corral.fit.devices import UnknownDeviceError
from corral.fit.estimate import DRIVER_MIB, MIB, Need, estimate
from corral.fit.model import ModelFile
from corral.fit.place import DoesNotFitError, place
from corral.plan.placement import DeviceNeed, InstanceNeed, ResolvedPlacement

GpuName = int | str


@dataclass(frozen=True, slots=True)
class Candidate:
    """An instance to place.

    + placement: what its profile says; of no meaning with "auto"
    + gpus: its set, by index or uuid; + model: None when its header is not at hand, which
    ``unknown`` explains
    """

    name: str
    label: str
    kind: EngineKind
    profile: Profile
    placement: ResolvedPlacement
    gpus: tuple[GpuName, ...]
    model: ModelFile | None
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class Placed:
    """A candidate's placement, decided, and what it needs with it."""

    placement: ResolvedPlacement
    need: InstanceNeed


def fit_host(
    host: str, candidates: Sequence[Candidate], *, memory_mib: int | None
) -> dict[str, Placed]:
    """Place all instances of a host, by name; ``memory_mib`` is of each of its GPUs.

    Those with placement = "auto" share what the others leave. Raises CorralError when something
    does not fit, or auto has nothing to go by.
    """
    for candidate in candidates:
        refuse_contradictions(host, candidate)
    fixed = {c.name: _fixed(host, c, memory_mib) for c in candidates if not _is_auto(c)}
    taken = _taken(candidates, fixed)
    waiting = [c for c in candidates if _is_auto(c)]
    users = Counter(gpu for c in waiting for gpu in c.gpus)
    found = dict(fixed)
    for candidate in waiting:
        left = [_left(memory_mib, taken[gpu], users[gpu]) for gpu in candidate.gpus]
        found[candidate.name] = _auto(host, candidate, memory_mib, left)
    _refuse_overfull(host, candidates, found, memory_mib)
    return {c.name: found[c.name] for c in candidates}


def even_split(placement: ResolvedPlacement, profile: Profile, gpus: int) -> ResolvedPlacement:
    """Equal GPUs share equally, in so many words: else the engine goes by what is free at start."""
    decided = placement.tensor_split or placement.gpu_layers == 0 or profile.split_mode == "none"
    if gpus < 2 or decided:
        return placement
    return placement.model_copy(update={"tensor_split": (1.0,) * gpus})


def refuse_contradictions(host: str, candidate: Candidate) -> None:
    """What a profile asks that the model's own header forbids. Raises CorralError."""
    shape = candidate.model.shape if candidate.model else None
    if shape is None:
        return
    profile, where = candidate.profile, f"{host}/{candidate.name}: {candidate.label}"
    rules = engine_module(candidate.kind).memory
    pair = (profile.kv_type_k, profile.kv_type_v)
    if shape.latent and rules.one_latent_cache and pair[0] != pair[1]:
        what = f"latent attention keeps one cache: kv_type_k {pair[0]}, kv_type_v {pair[1]}"
        raise CorralError(where, what, f'set kv_type_v = "{pair[0]}"')
    having = rules.split_architectures.get(profile.split_mode or "")
    if candidate.gpus and having is not None and shape.arch not in having:
        what = (
            f'split_mode = "{profile.split_mode}": {candidate.kind} has it for '
            f"{', '.join(having)}, and serves {shape.arch} by layer"
        )
        raise CorralError(where, what, 'set split_mode = "layer" in the profile')
    asked, trained = profile.context_tokens_per_slot, shape.train_context_tokens
    if asked > trained and profile.rope_scaling is None:
        what = f"{asked} context tokens a slot, but the model's header says {trained}"
        next_step = "lower context_tokens_per_slot in the profile, or ask for rope_scaling"
        raise CorralError(where, what, next_step)


def _is_auto(candidate: Candidate) -> bool:
    return candidate.profile.placement == "auto" and bool(candidate.gpus)


def _fixed(host: str, candidate: Candidate, memory_mib: int | None) -> Placed:
    placement = even_split(candidate.placement, candidate.profile, len(candidate.gpus))
    return Placed(placement, need_for(host, candidate, placement, _each(candidate, memory_mib)))


def need_for(
    host: str, candidate: Candidate, placement: ResolvedPlacement, memory_mib: Sequence[int]
) -> InstanceNeed:
    """What a candidate needs with a placement; ``memory_mib`` of each GPU of its set.

    Raises CorralError for an override or a cache type that is impossible.
    """
    if candidate.model is None:
        return InstanceNeed(unknown=candidate.unknown)
    where = f"{host}/{candidate.name}: {candidate.label}"
    try:
        found = estimate(
            candidate.model,
            candidate.profile,
            placement,
            kind=candidate.kind,
            gpu_memory_mib=memory_mib,
        )
    except UnknownDeviceError as error:
        raise CorralError(where, str(error), "fix tensor_overrides in the profile") from error
    except ValueError as error:
        what = f"the KV cache cannot be of these types: it has {error}"
        raise CorralError(where, what, "choose other kv_type_k and kv_type_v") from error
    return InstanceNeed(
        gpus=tuple(_device(need) for need in found.gpus),
        host=_device(found.host),
        unknown=found.unknown,
    )


def _auto(host: str, candidate: Candidate, memory_mib: int | None, left_mib: list[int]) -> Placed:
    where = f"{host}/{candidate.name}: {candidate.label}"
    if candidate.model is None:
        what = f'placement = "auto" needs the model\'s header: {candidate.unknown}'
        raise CorralError(where, what, "see that the hub can be reached, then run it again")
    if memory_mib is None:
        what = 'placement = "auto" needs the memory of the GPUs'
        raise CorralError(where, what, 'add "memory_mib" to "gpus" of the host')
    budgets = [mib - candidate.profile.gpu_reserve_mib for mib in left_mib]
    try:
        placement = place(
            candidate.model, candidate.profile, kind=candidate.kind, budgets_mib=budgets
        )
    except DoesNotFitError as error:
        next_step = "lower the context, choose a smaller quant, or free GPUs (`corral fit` lists)"
        raise CorralError(where, str(error), next_step) from error
    return Placed(placement, need_for(host, candidate, placement, _each(candidate, memory_mib)))


def _each(candidate: Candidate, memory_mib: int | None) -> list[int]:
    """All GPUs of a host are alike; where their memory is unknown they still share evenly."""
    return [memory_mib or 1] * len(candidate.gpus)


def _taken(candidates: Sequence[Candidate], fixed: Mapping[str, Placed]) -> Counter[GpuName]:
    """MiB that placed instances need on each GPU."""
    taken: Counter[GpuName] = Counter()
    for candidate in candidates:
        if candidate.name in fixed:
            for gpu, need in zip(candidate.gpus, fixed[candidate.name].need.gpus, strict=False):
                taken[gpu] += need.total_mib
    return taken


def _left(memory_mib: int | None, taken_mib: int, users: int) -> int:
    return ((memory_mib or 0) - DRIVER_MIB - taken_mib) // max(users, 1)


def _refuse_overfull(
    host: str, candidates: Sequence[Candidate], found: Mapping[str, Placed], memory_mib: int | None
) -> None:
    """Only what is exact refuses here; on bounds the proof on the host decides."""
    if memory_mib is None:
        return
    there_mib = memory_mib - DRIVER_MIB
    for gpu in dict.fromkeys(gpu for c in candidates for gpu in c.gpus):
        users = [c for c in candidates if gpu in c.gpus and found[c.name].need.gpus]
        exact_mib = {c.name: _on(c, found, gpu).exact_mib for c in users}
        if sum(exact_mib.values()) <= there_mib:
            continue
        parts = ", ".join(f"{name} {mib / 1024:.1f}" for name, mib in exact_mib.items())
        what = (
            f"GPU {gpu}: weights and KV cache of its instances are "
            f"{sum(exact_mib.values()) / 1024:.1f} GiB ({parts}), "
            f"{there_mib / 1024:.1f} GiB is there"
        )
        raise CorralError(host, what, _way_out(users))


def _way_out(users: Sequence[Candidate]) -> str:
    if len(users) > 1:
        return "give them other GPUs, or lower contexts, or choose smaller quants (`corral fit`)"
    return 'choose placement = "auto", a smaller context or a smaller quant (`corral fit`)'


def _on(candidate: Candidate, found: Mapping[str, Placed], gpu: GpuName) -> DeviceNeed:
    return found[candidate.name].need.gpus[candidate.gpus.index(gpu)]


def _device(need: Need) -> DeviceNeed:
    return DeviceNeed(
        weights_mib=_mib(need.weights_bytes),
        kv_mib=_mib(need.kv_bytes),
        compute_mib=_mib(need.compute_bytes),
        runtime_mib=_mib(need.runtime_bytes),
    )


def _mib(size_bytes: int) -> int:
    return -(-size_bytes // MIB)
