"""The answer of `corral fit`: what an instance needs on each device, against what is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corral.catalog.entries import EngineKind
from corral.catalog.profile import Profile
from corral.fit.estimate import DRIVER_MIB
from corral.fit.host import (
    Candidate,
    Placed,
    even_split,
    need_for,
    refuse_contradictions,
)
from corral.fit.model import ModelFile
from corral.fit.place import place
from corral.plan.placement import DeviceNeed, ResolvedPlacement
from corral.schema import Frozen

# Kept for the system and its other programs beside a server; a small host has fewer of them.
HOST_RESERVE_MIB = 12 * 1024
_RESERVE_SHARE = 4
# As many weights stay in memory on any host.
LEAST_MAPPED_MIB = 1024


def reserve_mib(memory_mib: int) -> int:
    """What of a host's memory is for others than servers and their weights."""
    return min(HOST_RESERVE_MIB, memory_mib // _RESERVE_SHARE)


_WHERE = "corral fit"


@dataclass(frozen=True, slots=True)
class Room:
    """A GPU to fit on: its memory, and what others hold or will hold of it."""

    name: str
    memory_mib: int
    others_mib: int = 0

    @property
    def there_mib(self) -> int:
        """What an instance may have."""
        return max(self.memory_mib - DRIVER_MIB - self.others_mib, 0)


class Row(Frozen):
    """One device. ``free_mib`` is what stays free, negative when it does not fit."""

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
        """False only when it is known not to."""
        return self.free_mib is None or self.free_mib >= 0


class Answer(Frozen):
    """Rows for the GPUs and, last, the host; ``unknown`` says what could not be counted."""

    rows: tuple[Row, ...]
    placement: ResolvedPlacement
    unknown: str = ""

    @property
    def fits(self) -> bool:
        """Whether every device holds its part; what is unknown does not fit."""
        return not self.unknown and all(row.fits for row in self.rows)


def answer(
    model: ModelFile,
    profile: Profile,
    placement: ResolvedPlacement,
    *,
    kind: EngineKind,
    rooms: Sequence[Room],
    host_memory_mib: int | None,
    name: str = "-",
) -> Answer:
    """Count one instance against the GPUs of its set.

    + placement: what the profile says; "auto" is decided here
    + name: of the profile, for errors
    Raises DoesNotFitError for an "auto" that has no way, CorralError for what cannot be at all.
    """
    candidate = Candidate(
        name=profile.model,
        label=f"profile {name}",
        kind=kind,
        profile=profile,
        placement=placement,
        gpus=tuple(range(len(rooms))),
        model=model,
    )
    refuse_contradictions(_WHERE, candidate)
    placed = _placed(candidate, model, rooms)
    gpus = [_gpu_row(room, need) for room, need in zip(rooms, placed.need.gpus, strict=False)]
    host = placed.need.host or DeviceNeed(weights_mib=0, kv_mib=0, compute_mib=0, runtime_mib=0)
    return Answer(
        rows=(*gpus, host_row(host, host_memory_mib, mapped=profile.load_mode == "mmap")),
        placement=placed.placement,
        unknown=placed.need.unknown,
    )


def _placed(candidate: Candidate, model: ModelFile, rooms: Sequence[Room]) -> Placed:
    """Of a model that is not known only the weights are counted, with all experts on the host."""
    profile, memory = candidate.profile, [room.memory_mib for room in rooms]
    placement = even_split(candidate.placement, profile, len(rooms))
    if profile.placement == "auto" and rooms and model.shape:
        budgets = [room.there_mib - profile.gpu_reserve_mib for room in rooms]
        placement = place(model, profile, kind=candidate.kind, budgets_mib=budgets)
    return Placed(placement, need_for(_WHERE, candidate, placement, memory))


def _gpu_row(room: Room, need: DeviceNeed) -> Row:
    free_mib = room.there_mib - need.total_mib
    return _row(room.name, need, room.others_mib, room.memory_mib, free_mib, "fits")


def host_row(need: DeviceNeed, memory_mib: int | None, *, mapped: bool, others_mib: int = 0) -> Row:
    """Weights that are mapped may be read again from the disk, which is slow; the rest must fit."""
    if memory_mib is None:
        return _row("host", need, others_mib, None, None, "memory unknown, give --ram")
    must_mib = need.total_mib - (need.weights_mib if mapped else 0)
    if memory_mib - others_mib < must_mib:
        free_mib = memory_mib - others_mib - must_mib
        return _row("host", need, others_mib, memory_mib, free_mib, "")
    free_mib = memory_mib - others_mib - need.total_mib
    many = need.weights_mib >= LEAST_MAPPED_MIB
    slow = mapped and many and free_mib < reserve_mib(memory_mib)
    verdict = "fits, but weights will be read from the disk again and again" if slow else "fits"
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
