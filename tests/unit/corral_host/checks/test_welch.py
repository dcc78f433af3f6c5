"""Whether a server is too slow, and whether that is known."""

from __future__ import annotations

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral.bench.compare import welch_margin
from tests.unit.helper_modules import helper_module

pytestmark = pytest.mark.slow

welch = helper_module("checks.welch")

SPEEDS = st.lists(st.floats(0.1, 1e5), min_size=2, max_size=12)
STEADY = [100.0, 100.0, 100.0]
NOISY = [60.0, 100.0, 140.0]


@given(SPEEDS, SPEEDS)
def test_the_margin_is_that_of_corral_bench_compare(a: list[float], b: list[float]) -> None:
    other = welch_margin(a, b)
    assert other is not None
    assert welch.margin(a, b) == pytest.approx(other)


def test_the_margin_is_welchs() -> None:
    # Variances 1 and 4 over 3: 2.94 degrees of freedom, so those of 2 hold: t is 4.303.
    assert welch.margin([1, 2, 3], [2, 4, 6]) == pytest.approx(4.303 * math.sqrt(5 / 3))


@pytest.mark.parametrize(
    ("new", "verdict"),
    [
        ([90.0] * 3, "kept"),
        ([89.99] * 3, "slower"),
        ([90.01] * 3, "kept"),
        ([50.0, 50.5, 51.0], "slower"),
        ([99.0, 100.0, 101.0], "kept"),
        ([70.0, 90.0, 110.0], "open"),
    ],
)
def test_nine_tenths_of_the_baseline_are_kept(new: list[float], verdict: str) -> None:
    assert welch.verdict(new, STEADY, 0.1, False) == verdict


@given(st.floats(0.1, 1e6), st.floats(0, 0.99), st.integers(2, 12), st.integers(2, 12))
def test_exactly_the_limit_is_kept(
    speed: float, epsilon: float, runs: int, baseline_runs: int
) -> None:
    new, baseline = [(1 - epsilon) * speed] * runs, [speed] * baseline_runs
    assert welch.verdict(new, baseline, epsilon, False) == "kept"
    assert welch.verdict(new, baseline, epsilon, True) == "kept"
    assert welch.verdict([0.999 * one for one in new], baseline, epsilon, True) == "slower"


def test_at_the_last_run_a_narrow_interval_around_the_limit_is_judged_by_its_middle() -> None:
    above, below = [89.9, 90.0, 90.2], [89.8, 90.0, 90.1]
    for last, verdicts in ((False, ("open", "open")), (True, ("kept", "slower"))):
        found = tuple(welch.verdict(new, STEADY, 0.1, last) for new in (above, below))
        assert found == verdicts


def test_a_wide_spread_stays_open_to_the_last() -> None:
    assert welch.verdict(NOISY, NOISY, 0.1, True) == "open"


@given(SPEEDS, SPEEDS, st.floats(0, 0.9))
def test_a_verdict_agrees_with_the_means(
    new: list[float], baseline: list[float], epsilon: float
) -> None:
    found = welch.verdict(new, baseline, epsilon, False)
    floor = (1 - epsilon) * statistics.fmean(baseline)
    if found == "kept":
        assert statistics.fmean(new) >= floor * (1 - 1e-6)
    if found == "slower":
        assert statistics.fmean(new) < floor


@given(SPEEDS)
def test_nothing_is_slower_than_itself(samples: list[float]) -> None:
    assert welch.verdict(samples, samples, 0.1, True) != "slower"
    assert not welch.is_faster(samples, samples)


def test_a_mean_is_known_when_its_interval_is_within_half_of_epsilon() -> None:
    # Standard error 1 / sqrt(3), t of 2 degrees 4.303: 2.48.
    assert welch.is_narrow([49.0, 50.0, 51.0], 0.1)
    assert not welch.is_narrow([49.0, 50.0, 51.0], 0.099)
