"""placement = "auto": use the GPUs, with the experts of as few layers as needed in host memory.

Attention, shared experts and the KV cache serve every token and are placed first. A token uses
about one in sixteen routed experts, so slow memory costs least for them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from corral.catalog.entries import EngineKind
from corral.catalog.profile import Profile
from corral.engines import engine_module
from corral.fit.devices import Devices
from corral.fit.estimate import MIB, estimate
from corral.fit.layer_split import layout
from corral.fit.model import ModelFile
from corral.fit.placings import expert_blocks
from corral.plan.placement import ResolvedPlacement

_EXPERTS = "up|down|gate|gate_up"
# Parts of one layer's experts that may be in host memory when the rest fits.
_PARTS = ("down", "gate|up|gate_up")
GIB = 1024**3


class DoesNotFitError(Exception):
    """It does not fit even with all experts or layers in host memory. The text is one sentence."""


def place(
    model: ModelFile, profile: Profile, *, kind: EngineKind, budgets_mib: Sequence[int]
) -> ResolvedPlacement:
    """The placement that uses the GPUs best; ``budgets_mib``: memory for it on each GPU.

    Raises DoesNotFitError.
    """
    if model.shape is None:
        raise DoesNotFitError(model.unknown)
    if min(budgets_mib) <= 0:
        raise DoesNotFitError("no GPU memory is left for it")
    budgets = _Budgets(model, profile, kind, tuple(budgets_mib))
    if not budgets.too_full(budgets.everything):
        return budgets.everything
    return _without_experts(budgets) if model.shape.experts_used else _fewer_layers(budgets)


@dataclass(frozen=True, slots=True)
class _Budgets:
    """A model, and the memory for it on each GPU."""

    model: ModelFile
    profile: Profile
    kind: EngineKind
    budgets_mib: tuple[int, ...]

    @property
    def everything(self) -> ResolvedPlacement:
        """All layers on the GPUs, split by their memory."""
        split = tuple(float(mib) for mib in self.budgets_mib) if len(self.budgets_mib) > 1 else ()
        return ResolvedPlacement(gpu_layers="all", tensor_split=split)

    def needed_bytes(self, placement: ResolvedPlacement) -> list[int]:
        needs = estimate(
            self.model, self.profile, placement, kind=self.kind, gpu_memory_mib=self.budgets_mib
        )
        return [need.total_bytes for need in needs.gpus]

    def too_full(self, placement: ResolvedPlacement) -> list[int]:
        """GPUs whose need exceeds their memory."""
        pairs = zip(self.needed_bytes(placement), self.budgets_mib, strict=True)
        return [gpu for gpu, (needed, mib) in enumerate(pairs) if needed > mib * MIB]

    @property
    def rules(self) -> Devices:
        """The device of each tensor with all layers on the GPUs."""
        return layout(
            self.model,
            self.profile,
            self.everything,
            engine=engine_module(self.kind).memory,
            gpu_memory_mib=self.budgets_mib,
        )

    def expert_blocks(self, gpus: Collection[int] | None = None) -> tuple[int, ...]:
        """Blocks with routed experts, in order: all, or those of some GPUs."""
        own = expert_blocks(self.model)
        if gpus is None:
            return own
        of_blocks = self.rules.of_blocks
        return tuple(block for block in own if of_blocks[block] in gpus)

    def refusal(self, placement: ResolvedPlacement) -> DoesNotFitError:
        needed = self.needed_bytes(placement)
        gpu = max(range(len(needed)), key=lambda n: needed[n] - self.budgets_mib[n] * MIB)
        return DoesNotFitError(
            f"GPU {gpu} of its set needs {needed[gpu] / GIB:.1f} GiB even with everything movable "
            f"in host memory, {self.budgets_mib[gpu] / 1024:.1f} GiB is available"
        )


def _fewer_layers(budgets: _Budgets) -> ResolvedPlacement:
    """A dense model: as many layers on the GPUs as fit, from the last one backwards."""

    def with_layers(count: int) -> ResolvedPlacement:
        return budgets.everything.model_copy(update={"gpu_layers": count})

    blocks = budgets.model.blocks
    left_out = _fewest(blocks - 1, lambda n: not budgets.too_full(with_layers(blocks - n)))
    if left_out is None:
        raise budgets.refusal(with_layers(1))
    return with_layers(blocks - left_out)


@dataclass(frozen=True, slots=True)
class _HostExperts:
    """Blocks with experts in host memory, and ``part`` of the experts of block ``partly``."""

    blocks: tuple[int, ...] = ()
    partly: int = 0
    part: str = ""


def _without_experts(budgets: _Budgets) -> ResolvedPlacement:
    """Move experts to host memory GPU by GPU until all fit; together where matrices are split.

    A GPU may need it again: experts of another GPU in host memory are copied for prompts.
    """
    every = tuple(range(len(budgets.budgets_mib)))
    groups = (every,) if budgets.rules.cuts_matrices else tuple((gpu,) for gpu in every)
    on_host = [_HostExperts()] * len(groups)
    while too_full := budgets.too_full(_placed(budgets, on_host)):
        n = next(n for n, gpus in enumerate(groups) if too_full[0] in gpus)
        on_host[n] = _fewest_on_host(budgets, n, groups[n], on_host)
    return _placed(budgets, on_host)


def _fewest_on_host(
    budgets: _Budgets, n: int, gpus: Sequence[int], others: Sequence[_HostExperts]
) -> _HostExperts:
    """The fewest experts, of the first blocks of group ``n``, with which the rest fits."""
    blocks = budgets.expert_blocks(gpus)

    def placed(own: _HostExperts) -> ResolvedPlacement:
        return _placed(budgets, [*others[:n], own, *others[n + 1 :]])

    def fits(own: _HostExperts) -> bool:
        return not set(gpus) & set(budgets.too_full(placed(own)))

    count = _fewest(len(blocks), lambda most: fits(_HostExperts(blocks[:most])))
    if count is None:
        raise budgets.refusal(placed(_HostExperts(blocks)))
    if count == 0:
        return _HostExperts()
    parts = (_HostExperts(blocks[: count - 1], blocks[count - 1], part) for part in _PARTS)
    return next((on_host for on_host in parts if fits(on_host)), _HostExperts(blocks[:count]))


def _placed(budgets: _Budgets, on_host: Sequence[_HostExperts]) -> ResolvedPlacement:
    """Name the first layers by their number, which reads best, and the others by pattern.

    Not by number where an engine divides that number among several GPUs.
    """
    first = on_host[0].blocks
    alone = (
        len(budgets.budgets_mib) == 1 or not engine_module(budgets.kind).memory.divides_layer_counts
    )
    by_number = alone and first == budgets.expert_blocks()[: len(first)]
    overrides = []
    for n, one in enumerate(on_host):
        if one.blocks and not (n == 0 and by_number):
            listed = "|".join(map(str, one.blocks))
            overrides.append(rf"blk\.({listed})\.ffn_({_EXPERTS})_exps=CPU")
        if one.part:
            overrides.append(rf"blk\.{one.partly}\.ffn_({one.part})_exps=CPU")
    changes = {
        "cpu_moe_layers": first[-1] + 1 if first and by_number else 0,
        "tensor_overrides": tuple(overrides),
    }
    return budgets.everything.model_copy(update=changes)


def _fewest(most: int, enough: Callable[[int], bool]) -> int | None:
    """The smallest count up to ``most`` that is enough, or None; ``enough`` is monotonic."""
    if not enough(most):
        return None
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low
