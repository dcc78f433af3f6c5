"""Machines that drift, on which settings have known speeds: what a search meets, without a host."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from corral.bench.tune.gains import (
    Gain,
    Setting,
    TimedRun,
    paired_gains,
    spread_gains,
)
from corral.bench.tune.search import Decided, Known, Measure, Rules, Search

Surface = Callable[[Setting], float]
"""Logarithm of the true answer tokens/s."""


@dataclass
class Machine:
    """A machine that measures with noise, and gets slower or faster meanwhile.

    + noise: standard deviation of one run, as a share; + drift: logarithm of its speed over runs
    """

    sizes: tuple[int, ...]
    surface: Surface
    seed: int
    noise: float = 0.03
    drift: Callable[[int], float] = lambda _: 0.0
    failing: frozenset[Setting] = frozenset()
    infeasible: frozenset[Setting] = frozenset()
    others: Callable[[Setting], tuple[float, float]] = lambda _: (0.0, 0.0)
    runs: int = 0
    looks: dict[Setting, list[Gain]] = field(default_factory=lambda: defaultdict(list))
    pairs: dict[Setting, list[Gain]] = field(default_factory=lambda: defaultdict(list))
    asked: list[Measure] = field(default_factory=list)
    failed: set[Setting] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)  # noqa: S311

    def run(self, setting: Setting) -> TimedRun:
        self.runs += 1
        if setting in self.failing:
            self.failed.add(setting)
            return TimedRun(setting, self.runs, None)
        moved = self.drift(self.runs)
        prompt, first = self.others(setting)
        true = {"answer": self.surface(setting), "prompt": prompt, "first_token": first}
        values: Gain = {k: v + moved + self.chance.gauss(0, self.noise) for k, v in true.items()}  # type: ignore[misc]
        return TimedRun(setting, self.runs, values)

    def step(self, rules: Rules, runs_left: int | None = None) -> Measure | Decided:
        known = Known(self.looks, self.pairs, frozenset(self.failed))
        feasible = self.infeasible.isdisjoint
        return Search(self.sizes, known, rules, lambda one: feasible({one}), runs_left).next_step()

    def measure(self, asked: Measure) -> None:
        self.asked.append(asked)
        runs = [self.run(setting) for setting in asked.order]
        for setting, gain in (paired_gains if asked.paired else spread_gains)(runs):
            (self.pairs if asked.paired else self.looks)[setting].append(gain)

    def search(self, rules: Rules | None = None, budget: int | None = None) -> Decided:
        rules = rules or Rules()
        while isinstance(
            step := self.step(rules, None if budget is None else budget - self.runs), Measure
        ):
            self.measure(step)
        return step


def slowing(runs: int) -> float:
    """A machine that heats up: 12% slower, most of it at the beginning, and a jump."""
    return -0.12 * (1 - math.exp(-runs / 25)) - (0.06 if runs > 40 else 0)


def swinging(runs: int) -> float:
    """A neighbour that works every now and then."""
    return 0.06 * math.sin(runs / 7)


def product_surface(sizes: tuple[int, ...], seed: int, interplay: float = 0.04) -> Surface:
    """Gains of single values that multiply, and some that only a combination has."""
    chance = random.Random(seed)  # noqa: S311
    alone = [[0.0, *(chance.uniform(-0.25, 0.15) for _ in range(size - 1))] for size in sizes]
    together = {
        (d, e, n, m): chance.gauss(0, interplay)
        for d in range(len(sizes))
        for e in range(d)
        for n in range(1, sizes[d])
        for m in range(1, sizes[e])
    }

    def of(setting: Setting) -> float:
        single = sum(alone[d][n] for d, n in enumerate(setting))
        both = ((d, e, n, setting[e]) for d, n in enumerate(setting) for e in range(d))
        return single + sum(together.get(key, 0.0) for key in both)

    return of
