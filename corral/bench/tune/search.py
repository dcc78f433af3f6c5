"""Which settings to measure next: a function of what was measured, without any measurement.

1. Look: every value of every dimension, the others as they are now, once.
2. Combine: the settings that promise most if the gains of single values multiply, once.
3. Successive halving of all of these: fewer settings, more runs of each.
4. Climb: the neighbours of the best, as long as one of them is better.
5. Confirm: the best in pairs with the current setting. Only these runs decide whether it is
   better: those that chose it favour it by chance.

What was measured is never asked for again, so that a search that was interrupted goes on where it
was: each decision uses the first runs of a setting alone, however many there are by now.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

from corral.bench.tune.gains import (
    OBJECTIVES,
    Gain,
    Objective,
    Setting,
    current,
    margin,
    mean,
    pairs,
    spread,
)

Verdict = Literal["better", "none", "unknown"]

# In the halving: settings kept of three, the fewest of the last round, and most runs of each.
_OF_THREE, _LAST, _MOST_RUNS = 3, 3, 4
# Neighbours that a climb looks at.
_NEIGHBOURS = 6
# More combinations than this are not all listed: of each dimension the best few choices are.
_MOST_LISTED, _BEST_CHOICES = 50_000, 2
# How much one per cent beyond what may be lost weighs against one per cent of the goal.
_PENALTY = 2.0
# Settings, and confirming pairs, of one block: what an interruption may cost.
_AT_ONCE, _PAIRS_AT_ONCE = 8, 3
# A confirmation may be looked at twice, so that each look needs a wider interval.
_TWO_LOOKS = 1.25


@dataclass(frozen=True, slots=True)
class Rules:
    """What is sought, and with how many runs.

    + may_lose: share of another objective that a better setting may cost
    + combined: settings of the second step; + climbs: most climbs
    + pairs: of a confirmation; as many again where the gain is plausible and not yet sure
    + least_gain: a smaller one is no difference
    """

    goal: Objective = "answer"
    may_lose: float = 0.1
    combined: int = 6
    climbs: int = 2
    pairs: int = 6
    least_gain: float = 0.01

    def value(self, gain: Gain) -> float:
        """The goal's gain, less what another objective loses beyond what it may."""
        return gain[self.goal] - _PENALTY * self.excess(gain)

    def excess(self, gain: Gain) -> float:
        """What other objectives lose beyond what they may."""
        limit = math.log(1 - self.may_lose)
        others = (value for key, value in gain.items() if key != self.goal)
        return sum(max(0.0, limit - value) for value in others)


@dataclass(frozen=True, slots=True)
class Known:
    """What was measured: gains in the order of the runs, and settings with which none ended."""

    looks: Mapping[Setting, Sequence[Gain]] = field(default_factory=dict)
    pairs: Mapping[Setting, Sequence[Gain]] = field(default_factory=dict)
    failed: frozenset[Setting] = frozenset()


class Measure(NamedTuple):
    """Runs to make next, in this order."""

    order: tuple[Setting, ...]
    paired: bool
    why: str


class Decided(NamedTuple):
    """The end. ``best`` is the current setting unless another is better.

    + verdict: unknown: the budget ended before; + gain, margin: of the goal, by pairs
    """

    best: Setting
    verdict: Verdict
    gain: float = 0.0
    margin: float = 0.0


@dataclass(frozen=True)
class Search:
    """A space of settings, what is known of them, and the rules.

    + sizes: number of choices of each dimension, the current one included
    + feasible: whether a setting can run at all
    + runs_left: runs that the budget still allows; None: any number
    """

    sizes: tuple[int, ...]
    known: Known
    rules: Rules
    feasible: Callable[[Setting], bool]
    runs_left: int | None = None

    def next_step(self) -> Measure | Decided:
        """The next runs, or the end."""
        if not self._look:
            return Decided(self._own, "none")
        pool: dict[Setting, None] = {}
        for why, settings, runs in self._steps():
            pool |= dict.fromkeys(settings)
            lacking = [one for one in settings if self._runs(one) < runs]
            order = spread(lacking[: _at_once(len(lacking))]) if lacking else ()
            if lacking and self._affords(len(order)):
                return Measure(order, paired=False, why=why)
            if lacking:
                break
        measured = [one for one in pool if self.known.looks.get(one)]
        if not measured:
            return Decided(self._own, "none" if self._affords(2) else "unknown")
        return self._confirm(max(measured, key=self._settled))

    def _steps(self) -> Iterator[tuple[str, list[Setting], int]]:
        """Step by step: its name, settings, and how many runs each of them shall have.

        The next step is asked for only when these have their runs.
        """
        yield "look", self._look, 1
        yield "combine", self._combined, 1
        best, runs = self._by_score([*self._look, *self._combined], 1), 1
        while runs < _MOST_RUNS or len(best) > _LAST:
            runs = min(2 * runs, _MOST_RUNS)
            kept = best[: max(_LAST, math.ceil(len(best) / _OF_THREE))]
            yield "halve", kept, runs
            best = self._by_score(kept, runs)
        for _ in range(self.rules.climbs if best else 0):
            top, near = best[0], self._near(best[0])
            yield "climb", near, 1
            ahead = self._score(top)
            better = [one for one in self._by_score(near, 1) if self._score(one, 1) > ahead]
            yield "climb", better[:_LAST], _MOST_RUNS
            best = self._by_score([top, *better[:_LAST]], _MOST_RUNS)
            if best[0] == top:
                return

    def _confirm(self, best: Setting) -> Measure | Decided:
        if self._settled(best) <= 0:
            return Decided(self._own, "none")
        found, wanted = self.known.pairs.get(best, ()), self.rules.pairs
        if len(found) >= wanted:
            decided = self._decided(best, found[:wanted])
            if decided.verdict == "better" or decided.gain < self.rules.least_gain:
                return decided
            wanted *= 2
        if len(found) >= wanted:
            return self._decided(best, found[:wanted])
        order = pairs(best, min(_PAIRS_AT_ONCE, wanted - len(found)))
        if self.runs_left is not None and self.runs_left < len(order):
            return self._decided(best, found) if len(found) > 1 else Decided(self._own, "unknown")
        return Measure(order, paired=True, why="confirm")

    def _decided(self, best: Setting, found: Sequence[Gain]) -> Decided:
        gain = mean(found)
        width = _TWO_LOOKS * margin([one[self.rules.goal] for one in found])
        goal = gain[self.rules.goal]
        if goal - width > 0 and goal >= self.rules.least_gain and not self.rules.excess(gain):
            return Decided(best, "better", goal, width)
        return Decided(self._own, "none", goal, width)

    def _affords(self, runs: int) -> bool:
        """Whether there is time for these runs and a confirmation afterwards."""
        return self.runs_left is None or self.runs_left >= runs + 2 * self.rules.pairs

    def _runs(self, setting: Setting) -> float:
        """Runs of a setting; of one that fails there are enough."""
        if setting in self.known.failed:
            return math.inf
        return len(self.known.looks.get(setting, ()))

    @cached_property
    def _own(self) -> Setting:
        return current(len(self.sizes))

    @cached_property
    def _look(self) -> list[Setting]:
        return [one for one in neighbours(self._own, self.sizes) if self.feasible(one)]

    @cached_property
    def _alone(self) -> Mapping[tuple[int, int], Gain]:
        """Dimension and choice -> the first gain of that choice alone."""
        looks = self.known.looks
        found = [(one, looks[one][0]) for one in self._look if looks.get(one)]
        return {next((d, n) for d, n in enumerate(one) if n): gain for one, gain in found}

    @cached_property
    def _combined(self) -> list[Setting]:
        """The settings that promise most by the gains of single values."""
        seen = {self._own, *self._look}
        choices = [list(range(size)) for size in self.sizes]
        if math.prod(self.sizes) > _MOST_LISTED:
            choices = [self._best_choices(d, own) for d, own in enumerate(choices)]
        ranked = sorted(itertools.product(*choices), key=lambda one: (-self._promise(one), one))
        fresh = (one for one in ranked if one not in seen and self._may_run(one))
        return list(itertools.islice(fresh, self.rules.combined))

    def _best_choices(self, dimension: int, choices: Sequence[int]) -> list[int]:
        alone = {n: self.rules.value(self._alone.get((dimension, n), _NOTHING)) for n in choices}
        best = sorted(choices, key=lambda n: alone[n], reverse=True)[:_BEST_CHOICES]
        return sorted({0, *best})

    def _may_run(self, setting: Setting) -> bool:
        """Whether it is feasible, and none of its values fails alone."""
        alone = ((d, n) for d, n in enumerate(setting) if n)
        single = ((*self._own[:d], n, *self._own[d + 1 :]) for d, n in alone)
        return not any(one in self.known.failed for one in single) and self.feasible(setting)

    def _promise(self, setting: Setting) -> float:
        """The score of a setting if the gains of its values multiply."""
        parts = [self._alone[pair] for pair in enumerate(setting) if pair in self._alone]
        return self.rules.value({key: sum(part[key] for part in parts) for key in OBJECTIVES})

    def _near(self, top: Setting) -> list[Setting]:
        """Neighbours of a setting that no step above has measured, the most promising first."""
        seen = {self._own, *self._look, *self._combined}
        near = (one for one in neighbours(top, self.sizes) if one not in seen)
        usable = [one for one in near if self._may_run(one)]
        return sorted(usable, key=lambda one: (-self._promise(one), one))[:_NEIGHBOURS]

    def _by_score(self, settings: Iterable[Setting], runs: int) -> list[Setting]:
        """Settings that were measured, the best first."""
        known = [one for one in settings if self.known.looks.get(one)]
        return sorted(known, key=lambda one: (-self._score(one, runs), one))

    def _score(self, setting: Setting, runs: int = _MOST_RUNS) -> float:
        """The score by the first runs of a setting."""
        return self.rules.value(mean(self.known.looks[setting][:runs]))

    def _settled(self, setting: Setting) -> float:
        """The score by all runs, less what so few can be off."""
        found = self.known.looks[setting]
        return self.rules.value(mean(found)) - _ONE_RUN / math.sqrt(len(found))


_NOTHING: Gain = dict.fromkeys(OBJECTIVES, 0.0)
# A single run is off by this much, as a logarithm: servers of the H200 trials varied as much.
_ONE_RUN = 0.03


def _at_once(number: int) -> int:
    """Settings of the next of several blocks that are equally long."""
    return math.ceil(number / math.ceil(number / _AT_ONCE))


def neighbours(setting: Setting, sizes: Sequence[int]) -> list[Setting]:
    """All settings with another choice in one dimension."""
    return [
        (*setting[:d], n, *setting[d + 1 :])
        for d, size in enumerate(sizes)
        for n in range(size)
        if n != setting[d]
    ]
