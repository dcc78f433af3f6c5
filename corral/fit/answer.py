"""The answer of `corral fit`: the need of an instance and the memory of each device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corral.catalog.entries import EngineKind
from corral.catalog.profile import Profile
from corral.fit.estimate import DRIVER_MIB
from corral.fit.host import (
    Candidate,
    Placed,
    need_for,
    refuse_contradictions,
    shared_out,
)
from corral.fit.model import ModelFile
from corral.fit.place import place
from corral.plan.placement import DeviceNeed, ResolvedPlacement
from corral.schema import Frozen

# Reserved for the system and its other programs; a small host needs less.
HOST_RESERVE_MIB = 12 * 1024
_RESERVE_SHARE = 4
# Any host keeps this much of mapped weights in memory.
LEAST_MAPPED_MIB = 1024


def reserve_mib(memory_mib: int) -> int:
    """Host memory that is reserved for everything but servers and their weights."""
    return min(HOST_RESERVE_MIB, memory_mib // _RESERVE_SHARE)


_WHERE = "corral fit"


@dataclass(frozen=True, slots=True)
class TargetGpu:
    """A GPU to fit on: its memory, and the part that others hold or will hold."""

    name: str
    memory_mib: int
    others_mib: int = 0

    @property
    def available_mib(self) -> int:
        """Memory available to an instance."""
        return max(self.memory_mib - DRIVER_MIB - self.others_mib, 0)


class Row(Frozen):
    """One device; ``free_mib``: memory that stays free, negative when the need does not fit."""

    device: str
    weights_mib: int
    kv_mib: int
    compute_mib: int
    runtime_mib: int
    others_mib: int
    memory_mib: int | None
    free_mib: int | None
    verdict: str

    @property
    def fits(self) -> bool:
        """False only when the need is known not to fit."""
        return self.free_mib is None or self.free_mib >= 0


class Answer(Frozen):
    """Rows for the GPUs and, last, the host; ``unknown``: what could not be counted, or empty."""

    rows: tuple[Row, ...]
    placement: ResolvedPlacement
    unknown: str = ""

    @property
    def fits(self) -> bool:
        """Whether the need fits every device; an unknown need does not fit."""
        return not self.unknown and all(row.fits for row in self.rows)


def answer(
    model: ModelFile,
    profile: Profile,
    placement: ResolvedPlacement,
    *,
    kind: EngineKind,
    targets: Sequence[TargetGpu],
    host_memory_mib: int | None,
    name: str = "-",
) -> Answer:
    """Fit one instance to the GPUs of its GPU set.

    + placement: that of the profile; "auto" is decided here
    + name: of the profile, for errors
    Raises DoesNotFitError where "auto" finds no placement, CorralError for impossible settings.
    """
    candidate = Candidate(
        name=profile.model,
        label=f"profile {name}",
        kind=kind,
        profile=profile,
        placement=placement,
        gpus=tuple(range(len(targets))),
        model=model,
    )
    refuse_contradictions(_WHERE, candidate)
    placed = _placed(candidate, model, targets)
    gpus = [gpu_row(target, need) for target, need in zip(targets, placed.need.gpus, strict=False)]
    host = placed.need.host or DeviceNeed(weights_mib=0, kv_mib=0, compute_mib=0, runtime_mib=0)
    rows = (*gpus, host_row(host, host_memory_mib, mapped=profile.load_mode == "mmap"))
    if placed.need.unknown:
        rows = tuple(_of_weights_alone(row) for row in rows)
    return Answer(rows=rows, placement=placed.placement, unknown=placed.need.unknown)


def _of_weights_alone(row: Row) -> Row:
    """The row of a model of which the rest is unknown: it may be too much already, never fit."""
    if not row.fits or row.memory_mib is None:
        return row
    return row.model_copy(update={"verdict": "its weights fit, the rest is unknown"})


def _placed(candidate: Candidate, model: ModelFile, targets: Sequence[TargetGpu]) -> Placed:
    """Place a candidate; of an unknown model only weights count, all experts in host memory."""
    profile, memory = candidate.profile, [target.memory_mib for target in targets]
    placement = shared_out(candidate.placement, profile, [t.memory_mib for t in targets])
    if profile.placement == "auto" and targets and model.shape:
        budgets = [target.available_mib - profile.gpu_reserve_mib for target in targets]
        placement = place(model, profile, kind=candidate.kind, budgets_mib=budgets)
    return Placed(placement, need_for(_WHERE, candidate, placement, memory))


def gpu_row(target: TargetGpu, need: DeviceNeed) -> Row:
    """The row of a GPU."""
    free_mib = target.available_mib - need.total_mib
    return _row(target.name, need, target.others_mib, target.memory_mib, free_mib, "fits")


def host_row(need: DeviceNeed, memory_mib: int | None, *, mapped: bool, others_mib: int = 0) -> Row:
    """The row of the host: mapped weights may be read from disk again, the rest must fit."""
    if memory_mib is None:
        return _row("host", need, others_mib, None, None, "memory unknown, use --ram")
    must_mib = need.total_mib - (need.weights_mib if mapped else 0)
    if memory_mib - others_mib < must_mib:
        free_mib = memory_mib - others_mib - must_mib
        return _row("host", need, others_mib, memory_mib, free_mib, "")
    free_mib = memory_mib - others_mib - need.total_mib
    many = need.weights_mib >= LEAST_MAPPED_MIB
    slow = mapped and many and free_mib < reserve_mib(memory_mib)
    verdict = "fits, but weights will be read from disk again and again" if slow else "fits"
    return _row("host", need, others_mib, memory_mib, max(free_mib, 0), verdict)


def _row(
    device: str,
    need: DeviceNeed,
    others_mib: int,
    memory_mib: int | None,
    free_mib: int | None,
    verdict: str,
) -> Row:
    if free_mib is not None and free_mib < 0:
        verdict = f"{-free_mib / 1024:.1f} GiB too little"
    return Row(
        device=device,
        weights_mib=need.weights_mib,
        kv_mib=need.kv_mib,
        compute_mib=need.compute_mib,
        runtime_mib=need.runtime_mib,
        others_mib=others_mib,
        memory_mib=memory_mib,
        free_mib=free_mib,
        verdict=verdict,
    )
