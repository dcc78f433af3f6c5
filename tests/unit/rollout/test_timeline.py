"""Bars of a rollout: within its whole, wave by wave, whatever the clocks of hosts say."""

from __future__ import annotations

from typing import Any

import pytest

from corral.rollout.journal import Rollout
from corral.rollout.timeline import timeline
from tests.unit.page.samples import rollout_of_three


def changed(**changes: Any) -> Rollout:
    return Rollout.model_validate({**rollout_of_three().model_dump(by_alias=True), **changes})


def at(moment: str) -> dict[str, Any]:
    first = rollout_of_three().reports[0].document()
    return {"reports": [{**first, "at": moment}], "reverts": [], "begun": ["gpu-01/glm-air"]}


def test_bars_are_where_their_activations_were() -> None:
    line = timeline(rollout_of_three())
    assert (line.seconds, line.waves) == (570, ("wave 1", "wave 2"))
    first = line.bars[0]
    assert (first.name, first.kind) == ("gpu-01/glm-air", "kept")
    assert first.begin_percent == pytest.approx(100 * 62.114 / 570)
    assert first.width_percent == pytest.approx(100 * 69.6 / 570)
    assert [bar.kind for bar in line.bars] == ["kept", "reverted", "kept", "failed", "reverted"]
    assert line.bars[1].outcome == "reverted to 3f9a1c77d2e0"


@pytest.mark.parametrize(
    "moment", ["", "x", "2026-11-29T16:29:00Z", "2026-11-29T18:00:00", "2019-01-01T00:00:00Z",
               "2026-11-29T16:39:29.900Z", "9999-12-31T23:59:59+14:00"]
)  # fmt: skip
def test_a_bar_is_never_outside_of_the_whole(moment: str) -> None:
    (bar,) = timeline(changed(**at(moment))).bars
    assert bar.begin_percent >= 0
    assert bar.width_percent > 0
    assert bar.begin_percent + bar.width_percent <= 100.0001


def test_what_was_begun_and_did_not_report_is_open() -> None:
    line = timeline(changed(reports=[], reverts=[], ended_at=None, exit_code=None))
    assert {bar.kind for bar in line.bars} == {"open"}
    assert len(line.bars) == 3


def test_a_rollout_that_has_just_begun_has_no_bars() -> None:
    assert timeline(changed(reports=[], reverts=[], begun=[], ended_at=None)).bars == ()
