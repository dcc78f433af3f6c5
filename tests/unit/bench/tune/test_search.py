"""The search on known surfaces: how near the best it ends, for how many runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest

from corral.bench.tune.gains import OBJECTIVES, Setting
from corral.bench.tune.search import Decided, Measure, Rules
from tests.unit.bench.tune.surfaces import (
    Machine,
    Surface,
    product_surface,
    slowing,
    swinging,
)

pytestmark = pytest.mark.slow

# Each setting of a grid, as often as its best ones would have to be measured to know them.
GRID_RUNS = 5
SIZES = (5, 4, 3)
SEEDS = range(40)


def best_of(sizes: tuple[int, ...], surface: Surface) -> float:
    return max(surface(one) for one in itertools.product(*map(range, sizes)))


@pytest.mark.parametrize("drift", [slowing, swinging])
def test_it_ends_within_3_per_cent_of_a_grid_for_a_quarter_of_its_runs(
    drift: Callable[[int], float],
) -> None:
    grid = math.prod(SIZES)
    quarter = grid * GRID_RUNS // 4
    behind = []
    for seed in SEEDS:
        surface = product_surface(SIZES, seed)
        machine = Machine(SIZES, surface, seed, noise=0.02, drift=drift)
        found = machine.search(budget=quarter)
        assert machine.runs <= quarter
        behind.append(best_of(SIZES, surface) - surface(found.best))
    assert grid >= 60
    # Of what has noise nothing is found always.
    assert sum(one <= 0.03 for one in behind) >= 0.95 * len(SEEDS)
    assert max(behind) < 0.05


def test_of_a_hundred_settings_it_finds_one_within_3_per_cent_nearly_always() -> None:
    sizes, near = (5, 4, 3, 2), 0
    for seed in SEEDS:
        surface = product_surface(sizes, seed)
        machine = Machine(sizes, surface, seed, noise=0.02, drift=slowing)
        found = machine.search()
        assert machine.runs <= math.prod(sizes) * GRID_RUNS // 4
        near += best_of(sizes, surface) - surface(found.best) <= 0.03
    assert near >= 0.9 * len(SEEDS)


@pytest.mark.parametrize("drift", [slowing, swinging])
def test_a_machine_that_drifts_makes_nothing_better(drift: Callable[[int], float]) -> None:
    found = [Machine(SIZES, lambda _: 0.0, seed, drift=drift).search() for seed in range(100)]
    assert sum(one.verdict == "better" for one in found) <= 3
    assert {one.verdict for one in found} <= {"better", "none"}


def test_a_machine_that_slows_down_alone_decides_nothing() -> None:
    """Without the runs between, each later setting would seem worse, each earlier one better."""
    machine = Machine(SIZES, lambda _: 0.0, 1, noise=0.001, drift=lambda runs: -0.02 * runs)
    assert machine.search().verdict == "none"
    assert all(abs(gain["answer"]) < 0.005 for gains in machine.looks.values() for gain in gains)


def test_an_interplay_of_two_values_is_found_by_climbing() -> None:
    def surface(one: Setting) -> float:
        return 0.10 * (one[0] == 1) + 0.10 * (one == (1, 2, 0))

    machine = Machine((2, 4, 2), surface, 3, noise=0.005)
    found = machine.search(Rules(combined=1))
    assert (found.best, found.verdict) == ((1, 2, 0), "better")
    assert found.gain == pytest.approx(0.2, abs=0.02)


def test_what_is_infeasible_is_never_asked_for_and_what_fails_once() -> None:
    infeasible = frozenset(one for one in itertools.product(range(4), range(4)) if sum(one) > 4)
    failing = frozenset({(3, 0)})
    surface: Surface = lambda one: 0.05 * sum(one)  # noqa: E731
    machine = Machine((4, 4), surface, 5, noise=0.005, infeasible=infeasible, failing=failing)
    found = machine.search()
    asked = [one for measure in machine.asked for one in measure.order]
    assert infeasible.isdisjoint(asked)
    assert asked.count((3, 0)) == 1
    # Of what has a value that fails alone, nothing is tried.
    assert not any(one[0] == 3 for one in asked if one != (3, 0))
    assert found.best in {(1, 3), (2, 2)}


def test_all_that_fails_is_no_difference() -> None:
    every = frozenset(itertools.product(range(2), range(2))) - {(0, 0)}
    assert Machine((2, 2), lambda _: 1.0, 1, failing=every).search() == Decided((0, 0), "none")
    assert Machine((1, 1), lambda _: 1.0, 1).search() == Decided((0, 0), "none")


def test_a_gain_that_costs_another_objective_too_much_is_not_better() -> None:
    """As micro-batch 512 on an H200: answers 1% faster, prompts at 0.6."""
    machine = Machine(
        (3, 2), lambda one: 0.05 * (one[0] == 1) + 0.03 * (one[0] == 2), 1, noise=0.004,
        others=lambda one: (math.log(0.6) if one[0] == 1 else 0.0, 0.0),
    )  # fmt: skip
    assert machine.search().best[0] == 2
    may = Rules(may_lose=0.5)
    again = Machine((3, 2), machine.surface, 1, noise=0.004, others=machine.others)
    assert again.search(may).best[0] == 1


@pytest.mark.parametrize("goal", OBJECTIVES)
def test_each_objective_can_be_the_goal(goal: str) -> None:
    own = {"answer": (1, 0, 0), "prompt": (0, 1, 0), "first_token": (0, 0, 1)}
    machine = Machine(
        (2, 2, 2), lambda one: 0.08 * one[0], 2, noise=0.004,
        others=lambda one: (0.08 * one[1], 0.08 * one[2]),
    )  # fmt: skip
    found = machine.search(Rules(goal=goal))  # type: ignore[arg-type]
    assert found.verdict == "better"
    assert all(a >= b for a, b in zip(found.best, own[goal], strict=True))


def test_an_interrupted_search_goes_on_and_asks_for_nothing_again() -> None:
    surface = product_surface(SIZES, 7)
    whole = Machine(SIZES, surface, 7, drift=slowing)
    whole.search()
    broken = Machine(SIZES, surface, 7, drift=slowing)
    for _ in range(100):
        step = broken.step(Rules())
        # All that is kept is what was measured.
        known = {one: list(gains) for one, gains in broken.looks.items()}
        assert broken.step(Rules()) == step
        assert known == dict(broken.looks)
        if not isinstance(step, Measure):
            break
        broken.measure(step)
    assert broken.asked == whole.asked


def test_more_runs_than_a_step_asks_for_change_no_earlier_decision() -> None:
    machine = Machine(SIZES, product_surface(SIZES, 11), 11)
    machine.search()
    before = machine.asked
    first = Machine(SIZES, machine.surface, 11)
    first.looks, first.pairs = machine.looks, machine.pairs
    assert isinstance(first.step(Rules()), Decided)
    assert len(before) > 3


def test_a_budget_ends_it_with_a_confirmation_or_without_a_verdict() -> None:
    surface = product_surface(SIZES, 3)
    unlimited = Machine(SIZES, surface, 3)
    unlimited.search()
    for budget in (3, 12, 30, 45):
        machine = Machine(SIZES, surface, 3)
        found = machine.search(budget=budget)
        assert machine.runs <= budget
        assert found.verdict in (("unknown",) if budget <= 12 else ("better", "none"))
        if found.verdict == "better":
            assert machine.asked[-1].paired


def test_a_large_space_is_not_listed_whole() -> None:
    sizes = (6,) * 8
    surface = product_surface(sizes, 1, interplay=0.0)
    machine = Machine(sizes, surface, 1, noise=0.01)
    found = machine.search()
    assert surface(found.best) > 0.7 * best_of((6,), lambda one: surface((*one, *(0,) * 7)))
    assert machine.runs < 150
