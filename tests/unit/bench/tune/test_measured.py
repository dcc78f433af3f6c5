"""The search of tune on what one H200 measured of a grid: docs/measurements/tune-h200.md."""

from __future__ import annotations

import pytest

from corral.bench.tune.search import Decided
from lab.measure_tune.phases import searched, sizes_of
from lab.measure_tune.replay import Surface, replay, surface_of
from lab.measure_tune.report import NEAR
from lab.measure_tune.rows import Row, read
from tests.unit.fit_samples import TEST_DATA

SEARCHES = 40


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return read(TEST_DATA / "tune-h200.jsonl")


@pytest.fixture(scope="module")
def surface(rows: list[Row]) -> Surface:
    return surface_of(rows)


def test_the_search_that_was_made_there_is_as_good_as_the_best_of_the_grid(
    rows: list[Row], surface: Surface
) -> None:
    settings = {row.setting for row in rows}
    step = searched(rows, settings, sizes_of(settings))
    assert isinstance(step, Decided)
    assert surface.behind(step.best) <= NEAR


def test_it_ends_within_3_per_cent_of_the_grid_in_a_quarter_of_its_time(surface: Surface) -> None:
    ends = [replay(surface, seed) for seed in range(SEARCHES)]
    # Of what has noise nothing is found always.
    assert sum(one.behind <= NEAR for one in ends) >= 0.95 * SEARCHES
    assert max(one.seconds for one in ends) <= surface.grid_seconds / 4
