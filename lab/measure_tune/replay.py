"""A search on what was measured, as often as wanted: how near the best it ends, at what cost."""

from __future__ import annotations

import random
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from corral.bench.tune.gains import OBJECTIVES, Gain, Setting, mean
from corral.bench.tune.search import Decided, Known, Rules, Search
from lab.measure_tune.phases import RULES, sizes_of
from lab.measure_tune.rows import Row, all_gains

# How often a grid would measure each setting, so that its best one is no chance.
GRID_RUNS = 5


@dataclass(frozen=True)
class Surface:
    """What was measured.

    + gains: of each setting against the current one, on average; + seconds: of a run of it
    + deviations: of single runs from the average of their setting
    """

    gains: Mapping[Setting, Gain]
    seconds: Mapping[Setting, float]
    deviations: Sequence[Gain]
    rules: Rules = RULES

    @property
    def best(self) -> float:
        """What the best setting is worth; the current one is worth nothing more or less."""
        return max(0.0, *(self.rules.value(gain) for gain in self.gains.values()))

    @property
    def grid_seconds(self) -> float:
        """The time of a grid."""
        return GRID_RUNS * sum(self.seconds[one] for one in {*self.gains, self.own})

    @property
    def own(self) -> Setting:
        """The current setting."""
        return (0,) * len(next(iter(self.gains)))

    def behind(self, setting: Setting) -> float:
        """How much less than the best a setting is worth, as a logarithm."""
        return self.best - (self.rules.value(self.gains[setting]) if any(setting) else 0.0)


@dataclass(frozen=True)
class Replayed:
    """The end of a search, its time, and how far it is behind the best."""

    decided: Decided
    seconds: float
    behind: float


def surface_of(rows: Sequence[Row]) -> Surface:
    """Averages of all runs. Deviations are those of settings with several runs."""
    gains = all_gains(rows)
    means = {setting: mean(found) for setting, found in gains.items()}
    seconds = defaultdict(list)
    for row in rows:
        if row.figures:
            seconds[row.setting].append(row.seconds)
    deviations = [
        # The average of few runs is nearer to them than the truth is.
        _scaled(gain, means[setting], (len(found) / (len(found) - 1)) ** 0.5)
        for setting, found in gains.items()
        if len(found) > 1
        for gain in found
    ]
    return Surface(means, {one: statistics.fmean(own) for one, own in seconds.items()}, deviations)


def _scaled(gain: Gain, middle: Gain, factor: float) -> Gain:
    return {key: factor * (gain[key] - middle[key]) for key in OBJECTIVES}


def replay(surface: Surface, seed: int) -> Replayed:
    """Search once: each run is its setting's average and the deviation of some run."""
    chance = random.Random(seed)  # noqa: S311
    looks: dict[Setting, list[Gain]] = defaultdict(list)
    pairs: dict[Setting, list[Gain]] = defaultdict(list)
    sizes, seconds = sizes_of([*surface.gains, surface.own]), 0.0
    while True:
        search = Search(sizes, Known(looks, pairs), surface.rules, surface.gains.__contains__)
        step = search.next_step()
        if isinstance(step, Decided):
            return Replayed(step, seconds, surface.behind(step.best))
        for setting in step.order:
            seconds += surface.seconds[setting]
            if any(setting):
                known, off = surface.gains[setting], chance.choice(surface.deviations)
                gain: Gain = {key: known[key] + off[key] for key in OBJECTIVES}
                (pairs if step.paired else looks)[setting].append(gain)
