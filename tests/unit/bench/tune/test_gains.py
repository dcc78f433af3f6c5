"""Gains of runs against the current setting, whatever the machine does meanwhile."""

from __future__ import annotations

import math

import pytest

from corral.bench.tune.gains import (
    Gain,
    TimedRun,
    margin,
    paired_gains,
    pairs,
    spread,
    spread_gains,
)

OWN, A, B, C = (0, 0), (1, 0), (0, 1), (1, 1)


def values(answer: float) -> Gain:
    return {"answer": answer, "prompt": 0.0, "first_token": 0.0}


@pytest.mark.parametrize(
    ("count", "shape"),
    [(1, "C.C"), (4, "C....C"), (5, "C..C...C"), (9, "C...C...C...C")],
)
def test_a_spread_block_is_begun_divided_and_ended_by_the_current_setting(
    count: int, shape: str
) -> None:
    settings = [(n + 1, 0) for n in range(count)]
    order = spread(settings)
    assert "".join("." if any(one) else "C" for one in order) == shape
    assert [one for one in order if any(one)] == settings


def test_each_second_pair_is_the_other_way_round() -> None:
    assert pairs(A, 3) == (OWN, A, A, OWN, OWN, A)


def test_a_steady_drift_is_taken_out() -> None:
    runs = [TimedRun(one, at, values(-0.01 * at + (0.1 if one == B else 0)))
            for at, one in ((0, OWN), (10, A), (25, B), (30, OWN))]  # fmt: skip
    found = dict(spread_gains(runs))
    assert found[A]["answer"] == pytest.approx(0.0)
    assert found[B]["answer"] == pytest.approx(0.1)


def test_without_one_of_the_runs_around_the_other_is_used() -> None:
    runs = [TimedRun(OWN, 0, None), TimedRun(A, 1, values(0.5)), TimedRun(OWN, 2, values(0.2))]
    assert dict(spread_gains(runs))[A]["answer"] == pytest.approx(0.3)
    assert list(spread_gains(runs[:2])) == []
    late = [TimedRun(OWN, 0, values(0.2)), TimedRun(A, 1, values(0.5))]
    assert dict(spread_gains(late))[A]["answer"] == pytest.approx(0.3)


def test_a_failed_run_has_no_gain() -> None:
    own = TimedRun(OWN, 0, values(0.0))
    assert list(spread_gains([own, TimedRun(C, 1, None), own])) == []
    assert list(paired_gains([own, TimedRun(C, 1, None)])) == []


def test_pairs_are_compared_within_themselves() -> None:
    runs = [TimedRun(one, at, values(v)) for at, (one, v) in enumerate(
        [(OWN, 0.0), (A, 0.1), (A, 0.4), (OWN, 0.3), (OWN, 0.9)])]  # fmt: skip
    assert [g["answer"] for _, g in paired_gains(runs)] == pytest.approx([0.1, 0.1])


def test_a_single_value_has_no_interval() -> None:
    assert margin([0.1]) == math.inf
    assert margin([0.1, 0.1, 0.1]) == 0
