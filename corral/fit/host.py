"""Placement of several instances on the GPUs of one host, and the sum of their needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from corral.catalog.entries import EngineKind
from corral.catalog.profile import Profile
from corral.engines import engine_module
from corral.engines.base import MemoryRules
from corral.errors import CorralError
from corral.fit.devices import UnknownDeviceError
from corral.fit.effects import without_effect
from corral.fit.estimate import DRIVER_MIB, MIB, Need, estimate
from corral.fit.model import ModelFile
from corral.fit.place import DoesNotFitError, place
from corral.fit.sources import AnyModel
from corral.fit.vocabulary import difference
from corral.model_files.model import SafetensorsModel
from corral.plan.placement import DeviceNeed, InstanceNeed, ResolvedPlacement

GpuName = int | str
# In place of the memory of GPUs that the inventory does not describe: their number is enough to
# place tensors.
UNKNOWN_MIB = 1
_EXACT, _RESERVED = "weights and KV cache of its instances are", "its instances reserve"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An instance to place.

    + placement: that of its profile; ignored with "auto"
    + gpus: its GPU set, by index or UUID; + model: None without its header; ``unknown``: why
    """

    name: str
    label: str
    kind: EngineKind
    profile: Profile
    placement: ResolvedPlacement
    gpus: tuple[GpuName, ...]
    model: AnyModel | None
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class Placed:
    """The decided placement of a candidate, and its memory need.

    + budgets_mib: what "auto" could use of each GPU, beside its neighbours
    """

    placement: ResolvedPlacement
    need: InstanceNeed
    budgets_mib: tuple[int, ...] = ()


def fit_host(
    host: str, candidates: Sequence[Candidate], *, memory_mib: int | None
) -> dict[str, Placed]:
    """Place all instances of a host; returns name -> placement.

    Instances with placement = "auto" share the memory that the others leave.
    + memory_mib: memory of each GPU
    Raises CorralError when an instance does not fit, or "auto" lacks the header or the memory.
    """
    for candidate in candidates:
        refuse_contradictions(host, candidate)
    fixed = {c.name: _fixed(host, c, memory_mib) for c in candidates if not _is_auto(c)}
    taken = _taken(candidates, fixed)
    auto = [c for c in candidates if _is_auto(c)]
    users = Counter(gpu for c in auto for gpu in c.gpus)
    placed = dict(fixed)
    for candidate in auto:
        available = [_available(memory_mib, taken[gpu], users[gpu]) for gpu in candidate.gpus]
        placed[candidate.name] = _auto(host, candidate, memory_mib, available)
    _refuse_overfull(host, candidates, placed, memory_mib)
    return {c.name: placed[c.name] for c in candidates}


def even_split(placement: ResolvedPlacement, profile: Profile, gpus: int) -> ResolvedPlacement:
    """An explicit even split for equal GPUs; else the engine splits by free memory at start."""
    decided = placement.tensor_split or placement.gpu_layers == 0 or profile.split_mode == "none"
    if gpus < 2 or decided:
        return placement
    return placement.model_copy(update={"tensor_split": (1.0,) * gpus})


def shared_out(
    placement: ResolvedPlacement, profile: Profile, memory_mib: Sequence[int]
) -> ResolvedPlacement:
    """An explicit split: even for equal GPUs, else by their memory."""
    even = even_split(placement, profile, len(memory_mib))
    if even == placement or len(set(memory_mib)) == 1 or sum(memory_mib) <= 0:
        return even
    return even.model_copy(update={"tensor_split": tuple(float(max(m, 0)) for m in memory_mib)})


def refuse_contradictions(host: str, candidate: Candidate) -> None:
    """Raises CorralError for settings of a profile that the model's header rules out."""
    if not isinstance(candidate.model, ModelFile):
        return
    profile, where = candidate.profile, f"{host}/{candidate.name}: {candidate.label}"
    rules = engine_module(candidate.kind).memory
    if candidate.model.arch in rules.unknown_architectures:
        what = f"{candidate.kind} does not know the architecture {candidate.model.arch}"
        raise CorralError(where, what, 'choose engine = "llama.cpp"')
    _refuse_drafts(where, candidate, candidate.model, rules)
    _refuse_split(where, candidate, candidate.model, rules)
    shape = candidate.model.shape
    if shape is None:
        return
    pair = (profile.kv_type_k, profile.kv_type_v)
    if shape.latent and rules.one_latent_cache and pair[0] != pair[1]:
        what = f"latent attention has one cache: kv_type_k {pair[0]}, kv_type_v {pair[1]}"
        raise CorralError(where, what, f'set kv_type_v = "{pair[0]}"')
    if idle := without_effect(profile, shape):
        step = f"remove {', '.join(one.key for one in idle)} from the profile"
        raise CorralError(where, "; ".join(map(str, idle)), step)
    context, trained = profile.context_tokens_per_slot, shape.train_context_tokens
    if context > trained and profile.rope_scaling is None:
        what = f"{context} context tokens a slot, but the model's header has {trained}"
        next_step = "lower context_tokens_per_slot in the profile, or set rope_scaling"
        raise CorralError(where, what, next_step)


def _refuse_drafts(where: str, candidate: Candidate, model: ModelFile, rules: MemoryRules) -> None:
    """Raises CorralError where drafts are asked of a model or engine that makes none."""
    kind, arch = candidate.kind, model.arch
    _refuse_foreign_draft(where, candidate, model)
    if candidate.profile.mtp_draft_tokens is None:
        return
    if not model.mtp_blocks:
        what = "mtp_draft_tokens is set, but the model's file has no MTP block"
        raise CorralError(where, what, "remove mtp_draft_tokens, or choose a quant that has one")
    having = rules.mtp_architectures
    if having is not None and arch not in having:
        what = f"mtp_draft_tokens: {kind} drafts with the MTP block of {', '.join(having)} only"
        raise CorralError(where, what, f"remove mtp_draft_tokens: the model is of {arch}")
    if arch in rules.no_mtp_architectures:
        what = f"mtp_draft_tokens: {kind} cannot draft with the MTP block of {arch} yet"
        raise CorralError(where, what, "remove mtp_draft_tokens: it would not start")


def _refuse_foreign_draft(where: str, candidate: Candidate, model: ModelFile) -> None:
    """Raises CorralError for a draft model with other tokens: the server would not start."""
    if model.draft is None:
        return
    if found := difference(model.vocabulary, model.draft.vocabulary):
        what = f"draft_model {candidate.profile.draft_model} cannot draft for this model: {found}"
        raise CorralError(where, what, "choose a draft_model of the same family, or remove it")


def _refuse_split(where: str, candidate: Candidate, model: ModelFile, rules: MemoryRules) -> None:
    """Raises CorralError where the engine cannot split the architecture as a profile says."""
    mode, kind = candidate.profile.split_mode or "", candidate.kind
    if not candidate.gpus:
        return
    having = rules.split_architectures.get(mode)
    if model.shape and having is not None and model.arch not in having:
        what = (
            f'split_mode = "{mode}": {kind} supports it for '
            f"{', '.join(having)} only, and serves {model.arch} by layer"
        )
        raise CorralError(where, what, 'set split_mode = "layer" in the profile')
    if model.arch in rules.unsplit_architectures.get(mode, ()):
        what = f'split_mode = "{mode}": {kind} cannot do it for {model.arch}, and would not start'
        raise CorralError(where, what, 'set split_mode = "layer" in the profile')


def _is_auto(candidate: Candidate) -> bool:
    return candidate.profile.placement == "auto" and bool(candidate.gpus)


def _fixed(host: str, candidate: Candidate, memory_mib: int | None) -> Placed:
    placement = even_split(candidate.placement, candidate.profile, len(candidate.gpus))
    return Placed(placement, need_for(host, candidate, placement, _each(candidate, memory_mib)))


def need_for(
    host: str, candidate: Candidate, placement: ResolvedPlacement, memory_mib: Sequence[int]
) -> InstanceNeed:
    """The memory need of a candidate with a placement; ``memory_mib``: of each GPU of its set.

    Raises CorralError for an impossible override or KV cache type.
    """
    if candidate.model is None:
        return InstanceNeed(unknown=candidate.unknown)
    where = f"{host}/{candidate.name}: {candidate.label}"
    if isinstance(candidate.model, SafetensorsModel):
        return _counted(candidate, candidate.model, memory_mib, where)
    try:
        need = estimate(
            candidate.model,
            candidate.profile,
            placement,
            kind=candidate.kind,
            gpu_memory_mib=memory_mib,
        )
    except UnknownDeviceError as error:
        raise CorralError(where, str(error), "fix tensor_overrides in the profile") from error
    except ValueError as error:
        what = f"the KV cache cannot have these types: it has {error}"
        raise CorralError(where, what, "choose other kv_type_k and kv_type_v") from error
    return InstanceNeed(
        gpus=tuple(_device(gpu) for gpu in need.gpus),
        host=_device(need.host),
        unknown=need.unknown,
    )


def _counted(
    candidate: Candidate, model: SafetensorsModel, memory_mib: Sequence[int], where: str
) -> InstanceNeed:
    """The need by the engine's own count. Raises CorralError where it could not serve."""
    if candidate.gpus and min(memory_mib) <= UNKNOWN_MIB:
        unknown = 'the memory of the GPUs is unknown: add "memory_mib" to "gpus" of the host'
        return InstanceNeed(unknown=unknown)
    engine = engine_module(candidate.kind)
    counted = engine.count_memory(model, candidate.profile, gpu_memory_mib=memory_mib)
    if counted.refusal:
        raise CorralError(where, counted.refusal, f"{counted.next_step} (`corral fit`)")
    return counted.need


def _auto(
    host: str, candidate: Candidate, memory_mib: int | None, available_mib: list[int]
) -> Placed:
    where = f"{host}/{candidate.name}: {candidate.label}"
    if not isinstance(candidate.model, ModelFile):
        what = f'placement = "auto" needs the model\'s header: {candidate.unknown}'
        raise CorralError(where, what, "check that the hub can be reached, then run it again")
    if memory_mib is None:
        what = 'placement = "auto" needs the memory of the GPUs'
        raise CorralError(where, what, 'add "memory_mib" to "gpus" of the host')
    budgets = [mib - candidate.profile.gpu_reserve_mib for mib in available_mib]
    try:
        placement = place(
            candidate.model, candidate.profile, kind=candidate.kind, budgets_mib=budgets
        )
    except DoesNotFitError as error:
        next_step = "lower the context, choose a smaller quant, or free GPUs (see `corral fit`)"
        raise CorralError(where, str(error), next_step) from error
    need = need_for(host, candidate, placement, _each(candidate, memory_mib))
    return Placed(placement, need, tuple(budgets))


def _each(candidate: Candidate, memory_mib: int | None) -> list[int]:
    """Memory of each GPU; all GPUs of a host are equal, also where their memory is unknown."""
    return [memory_mib or UNKNOWN_MIB] * len(candidate.gpus)


def _taken(candidates: Sequence[Candidate], fixed: Mapping[str, Placed]) -> Counter[GpuName]:
    """MiB that placed instances need on each GPU."""
    taken: Counter[GpuName] = Counter()
    for candidate in candidates:
        if candidate.name in fixed:
            for gpu, need in zip(candidate.gpus, fixed[candidate.name].need.gpus, strict=False):
                taken[gpu] += need.total_mib
    return taken


def _available(memory_mib: int | None, taken_mib: int, users: int) -> int:
    return ((memory_mib or 0) - DRIVER_MIB - taken_mib) // max(users, 1)


def _refuse_overfull(
    host: str, candidates: Sequence[Candidate], placed: Mapping[str, Placed], memory_mib: int | None
) -> None:
    """Raises CorralError where the exact need exceeds a GPU; bounds are proved on the host."""
    if memory_mib is None:
        return
    available_mib = memory_mib - DRIVER_MIB
    for gpu in dict.fromkeys(gpu for c in candidates for gpu in c.gpus):
        users = [c for c in candidates if gpu in c.gpus and placed[c.name].need.gpus]
        exact_mib = {c.name: _on(c, placed, gpu).exact_mib for c in users}
        if sum(exact_mib.values()) <= available_mib:
            continue
        parts = ", ".join(f"{name} {mib / 1024:.1f}" for name, mib in exact_mib.items())
        reserves = any(_on(c, placed, gpu).reserved_mib for c in users)
        what = (
            f"GPU {gpu}: {_RESERVED if reserves else _EXACT} "
            f"{sum(exact_mib.values()) / 1024:.1f} GiB ({parts}), "
            f"{available_mib / 1024:.1f} GiB is available"
        )
        raise CorralError(host, what, _next_step(users, reserves=reserves))


def _next_step(users: Sequence[Candidate], *, reserves: bool) -> str:
    if reserves and len(users) > 1:
        return "lower gpu_memory_utilization of those that share it, or give them other GPUs"
    if reserves:
        return "lower gpu_memory_utilization"
    if len(users) > 1:
        return "give them other GPUs, or lower contexts, or choose smaller quants (`corral fit`)"
    return 'choose placement = "auto", a smaller context or a smaller quant (`corral fit`)'


def _on(candidate: Candidate, placed: Mapping[str, Placed], gpu: GpuName) -> DeviceNeed:
    return placed[candidate.name].need.gpus[candidate.gpus.index(gpu)]


def _device(need: Need) -> DeviceNeed:
    return DeviceNeed(
        weights_mib=_mib(need.weights_bytes),
        kv_mib=_mib(need.kv_bytes),
        compute_mib=_mib(need.compute_bytes),
        runtime_mib=_mib(need.runtime_bytes),
    )


def _mib(size_bytes: int) -> int:
    return -(-size_bytes // MIB)
