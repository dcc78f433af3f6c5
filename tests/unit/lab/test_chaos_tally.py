"""What requests come to: failures by kind, the longest gap, how long until it was good again."""

from __future__ import annotations

import pytest

from lab.chaos.tally import Outcome, Reply, summary


def reply(began: float, outcome: Outcome = Outcome.GOOD, detail: str = "") -> Reply:
    return Reply(began, began + 0.1, began + 0.5, 3, outcome, detail, reused=False)


def test_a_calm_load_has_no_failure_and_nothing_to_recover_from() -> None:
    found = summary([reply(0), reply(1), reply(2)])
    assert (found.asked, found.failed, found.failures) == (3, 0, {})
    assert found.longest_gap_seconds == pytest.approx(1)
    assert found.recovery_seconds == 0
    assert found.median_seconds == pytest.approx(0.5)
    assert found.first_token_median_seconds == pytest.approx(0.1)


def test_recovery_is_from_the_first_failure_to_the_first_good_reply_after_the_last() -> None:
    refused = Outcome.REFUSED
    found = summary([reply(0), reply(1, refused), reply(2), reply(3, refused), reply(4), reply(5)])
    assert found.recovery_seconds == pytest.approx(3.5)
    assert found.longest_gap_seconds == pytest.approx(2)


def test_an_answer_that_was_slow_to_come_is_no_recovery_from_what_failed_after_it() -> None:
    slow = Reply(0.5, 4.9, 5.0, 3, Outcome.GOOD, "", reused=False)
    found = summary([slow, reply(1, Outcome.CUT)])
    assert found.recovery_seconds is None


def test_failures_are_told_by_kind_and_statuses_by_number() -> None:
    found = summary(
        [
            reply(0, Outcome.REFUSED, "nobody"),
            reply(1, Outcome.REFUSED, "somebody"),
            reply(2, Outcome.STATUS, "503"),
        ]
    )
    assert found.failures == {"refused": 2, "status 503": 1}


def test_a_load_without_requests_comes_to_nothing() -> None:
    found = summary([])
    assert (found.asked, found.longest_gap_seconds, found.slowest_seconds) == (0, 0.0, None)
