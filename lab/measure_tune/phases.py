"""What to measure next: the search, the recipe, the rest of the grid, and its best once more."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sequence
from typing import NamedTuple

from corral.bench.tune.gains import Setting, mean, pairs, spread
from corral.bench.tune.search import Decided, Measure, Rules, Search
from lab.measure_tune.rows import Phase, Row, all_gains, blocks, known

RULES = Rules()
_RECIPE_PAIRS = 3
# Settings of a block of the grid, and how often its best ones are measured once more.
_AT_ONCE, _BEST, _FINAL_ROUNDS = 8, 3, 3


class Block(NamedTuple):
    """Runs to make together."""

    phase: Phase
    paired: bool
    why: str
    order: tuple[Setting, ...]


def next_block(
    rows: Sequence[Row], feasible: Collection[Setting], sizes: Sequence[int], recipe: Setting
) -> Block | None:
    """The next runs by what whole blocks have; None at the end.

    The search comes first, so that it costs what it costs alone. The grid is in random order: any
    part of it is a fair sample.
    """
    step = searched(rows, feasible, sizes)
    if isinstance(step, Measure):
        return Block("search", step.paired, step.why, step.order)
    if not _whole(rows, "recipe"):
        return Block("recipe", True, "the recipe", pairs(recipe, _RECIPE_PAIRS))
    if lacking := unmeasured(rows, feasible):
        at_once = math.ceil(len(lacking) / math.ceil(len(lacking) / _AT_ONCE))
        return Block("grid", False, "the grid", spread(lacking[:at_once]))
    if _whole(rows, "final") < _FINAL_ROUNDS and (best := finalists(rows, step)):
        return Block("final", False, "the best once more", spread(best))
    return None


def searched(
    rows: Sequence[Row], feasible: Collection[Setting], sizes: Sequence[int]
) -> Measure | Decided:
    """The next step of tune's search by its own runs alone."""
    own = known(rows, lambda row: row.phase == "search")
    return Search(tuple(sizes), own, RULES, feasible.__contains__).next_step()


def unmeasured(rows: Sequence[Row], feasible: Collection[Setting]) -> list[Setting]:
    """Settings of the grid without a run, in an order that is random and always the same."""
    found = known(rows)
    seen = {*found.looks, *found.pairs, *found.failed}
    lacking = sorted(one for one in feasible if any(one) and one not in seen)
    random.Random(len(feasible)).shuffle(lacking)  # noqa: S311
    return lacking


def finalists(rows: Sequence[Row], step: Measure | Decided) -> list[Setting]:
    """The best by all runs before, and the answer of the search."""
    gains = all_gains([row for row in rows if row.phase != "final"])
    best = sorted(gains, key=lambda one: (-RULES.value(mean(gains[one])), one))[:_BEST]
    own = [step.best] if isinstance(step, Decided) and any(step.best) else []
    return [*dict.fromkeys([*best, *own])]


def sizes_of(settings: Collection[Setting]) -> tuple[int, ...]:
    """Choices of each dimension; a dimension without any other choice has one."""
    return tuple(max(column) + 1 for column in zip(*settings, strict=True))


def _whole(rows: Sequence[Row], phase: Phase) -> int:
    return sum(len(one) == one[0].of and one[0].phase == phase for one in blocks(rows))
