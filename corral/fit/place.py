"""placement = "auto": what fits on the GPUs goes there; the experts of as few layers as needed
stay on the host.

Attention, shared experts and the KV cache serve every token and are placed first. Of the routed
experts a token uses one in sixteen or so, hence they cost least where memory is slow.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from corral.catalog.entries import EngineKind
from corral.catalog.profile import Profile
from corral.engines import engine_module
from corral.fit.devices import Devices, block_of, devices, is_expert
from corral.fit.estimate import MIB, estimate
from corral.fit.model import ModelFile
from corral.plan.placement import ResolvedPlacement

_EXPERTS = "up|down|gate|gate_up"
# What of one layer's experts may stay on the host when all of them need not.
_PARTS = ("down", "gate|up|gate_up")
GIB = 1024**3


class DoesNotFitError(Exception):
    """Nothing that auto may move makes it fit. The text is one sentence."""


def place(
    model: ModelFile, profile: Profile, *, kind: EngineKind, budgets_mib: Sequence[int]
) -> ResolvedPlacement:
    """The placement that uses the GPUs best; ``budgets_mib`` is what each GPU has for it.

    Raises DoesNotFitError.
    """
    if model.shape is None:
        raise DoesNotFitError(model.unknown)
    if min(budgets_mib) <= 0:
        raise DoesNotFitError("nothing is left of the GPUs' memory")
    room = _Room(model, profile, kind, tuple(budgets_mib))
    if not room.too_full(room.everything):
        return room.everything
    return _without_experts(room) if model.shape.experts_used else _fewer_layers(room)


@dataclass(frozen=True, slots=True)
class _Room:
    """A model, and the memory that each GPU has for it."""

    model: ModelFile
    profile: Profile
    kind: EngineKind
    budgets_mib: tuple[int, ...]

    @property
    def everything(self) -> ResolvedPlacement:
        """All layers on the GPUs, shared by what each has."""
        split = tuple(float(mib) for mib in self.budgets_mib) if len(self.budgets_mib) > 1 else ()
        return ResolvedPlacement(gpu_layers="all", tensor_split=split)

    def needed_bytes(self, placement: ResolvedPlacement) -> list[int]:
        found = estimate(
            self.model, self.profile, placement, kind=self.kind, gpu_memory_mib=self.budgets_mib
        )
        return [need.total_bytes for need in found.gpus]

    def too_full(self, placement: ResolvedPlacement) -> list[int]:
        """GPUs that are asked for more than they have."""
        pairs = zip(self.needed_bytes(placement), self.budgets_mib, strict=True)
        return [gpu for gpu, (needed, mib) in enumerate(pairs) if needed > mib * MIB]

    @property
    def rules(self) -> Devices:
        """What is where with all layers on the GPUs."""
        return devices(
            self.everything,
            blocks=self.model.blocks,
            gpu_memory_mib=self.budgets_mib,
            split_mode=self.profile.split_mode,
            main_gpu=self.profile.main_gpu,
        )

    def expert_blocks(self, gpus: Collection[int] | None = None) -> tuple[int, ...]:
        """Blocks that have routed experts, in order: all, or those of some GPUs."""
        named = {block_of(t.name) or 0 for t in self.model.tensors if is_expert(t.name)}
        own = sorted(block for block in named if block < self.model.layers)
        if gpus is None:
            return tuple(own)
        of_blocks = self.rules.of_blocks
        return tuple(block for block in own if of_blocks[block] in gpus)

    def refusal(self, placement: ResolvedPlacement) -> DoesNotFitError:
        needed = self.needed_bytes(placement)
        gpu = max(range(len(needed)), key=lambda n: needed[n] - self.budgets_mib[n] * MIB)
        return DoesNotFitError(
            f"GPU {gpu} of its set needs {needed[gpu] / GIB:.1f} GiB even with all that may move "
            f"on the host, {self.budgets_mib[gpu] / 1024:.1f} GiB is there for it"
        )


def _fewer_layers(room: _Room) -> ResolvedPlacement:
    """A dense model: as many layers as fit, from the last one backwards."""

    def with_layers(count: int) -> ResolvedPlacement:
        return room.everything.model_copy(update={"gpu_layers": count})

    blocks = room.model.blocks
    left_out = _fewest(blocks - 1, lambda n: not room.too_full(with_layers(blocks - n)))
    if left_out is None:
        raise room.refusal(with_layers(1))
    return with_layers(blocks - left_out)


@dataclass(frozen=True, slots=True)
class _Kept:
    """Blocks whose experts stay on the host, and ``part`` of the experts of one block more."""

    blocks: tuple[int, ...] = ()
    partly: int = 0
    part: str = ""


def _without_experts(room: _Room) -> ResolvedPlacement:
    """GPU by GPU, until none is too full; all at once where each holds a part of every matrix.

    A GPU may become so again: experts that another leaves on the host are copied for prompts.
    """
    every = tuple(range(len(room.budgets_mib)))
    groups = (every,) if room.rules.cuts_matrices else tuple((gpu,) for gpu in every)
    kept = [_Kept()] * len(groups)
    while too_full := room.too_full(_placed(room, kept)):
        n = next(n for n, gpus in enumerate(groups) if too_full[0] in gpus)
        kept[n] = _fewest_kept(room, n, groups[n], kept)
    return _placed(room, kept)


def _fewest_kept(room: _Room, n: int, gpus: Sequence[int], others: Sequence[_Kept]) -> _Kept:
    """As few experts of the first blocks of group ``n`` as make the rest fit on its GPUs."""
    blocks = room.expert_blocks(gpus)

    def placed(own: _Kept) -> ResolvedPlacement:
        return _placed(room, [*others[:n], own, *others[n + 1 :]])

    def fits(own: _Kept) -> bool:
        return not set(gpus) & set(room.too_full(placed(own)))

    count = _fewest(len(blocks), lambda most: fits(_Kept(blocks[:most])))
    if count is None:
        raise room.refusal(placed(_Kept(blocks)))
    if count == 0:
        return _Kept()
    parts = (_Kept(blocks[: count - 1], blocks[count - 1], part) for part in _PARTS)
    return next((kept for kept in parts if fits(kept)), _Kept(blocks[:count]))


def _placed(room: _Room, kept: Sequence[_Kept]) -> ResolvedPlacement:
    """The first layers by their number, which people read best; the others by pattern.

    Some engines take a number as a count for all GPUs together, which they divide among them.
    """
    first = kept[0].blocks
    alone = len(room.budgets_mib) == 1 or not engine_module(room.kind).memory.divides_layer_counts
    by_number = alone and first == room.expert_blocks()[: len(first)]
    overrides = []
    for n, one in enumerate(kept):
        if one.blocks and not (n == 0 and by_number):
            listed = "|".join(map(str, one.blocks))
            overrides.append(rf"blk\.({listed})\.ffn_({_EXPERTS})_exps=CPU")
        if one.part:
            overrides.append(rf"blk\.{one.partly}\.ffn_({one.part})_exps=CPU")
    changes = {
        "cpu_moe_layers": first[-1] + 1 if first and by_number else 0,
        "tensor_overrides": tuple(overrides),
    }
    return room.everything.model_copy(update=changes)


def _fewest(most: int, enough: Callable[[int], bool]) -> int | None:
    """The smallest count up to ``most`` that is enough; more always is, too."""
    if not enough(most):
        return None
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low
