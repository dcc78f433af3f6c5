"""Alerts of one row of the hard day: what came since, counted from its fault."""

from __future__ import annotations

import itertools

import pytest

from lab.alerts.prometheus import Prometheus, Span
from lab.alerts.timeline import Seen
from lab.chaos.alerts import Watch
from lab.layout import GATEWAY, Layout
from tests.samples import ROOT


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Began at 100; time goes on by a second with each look at a clock."""
    monkeypatch.setattr("lab.chaos.alerts.time.time", itertools.count(200).__next__)
    monkeypatch.setattr("lab.alerts.prometheus.time.monotonic", itertools.count(0).__next__)
    monkeypatch.setattr("lab.alerts.prometheus.time.sleep", lambda _: None)
    return Watch(Prometheus(Layout.of(ROOT), GATEWAY, 3.0), 100)


def test_an_alert_of_the_row_before_says_nothing_of_this_one(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = [
        Span("CorralDown", "pending", {}, 94, 120),
        Span("CorralDown", "firing", {}, 120, 130),
        Span("CorralDiskFull", "pending", {}, 130, 140),
        Span("CorralQueue", "pending", {}, 130, 140),
        Span("CorralQueue", "firing", {}, 145, 150),
    ]
    monkeypatch.setattr(Prometheus, "spans", lambda *_: spans)
    assert watch.seen(125) == (Seen("CorralQueue", 5, 20, 25),)


def test_one_that_must_fire_and_does_not_is_wrong(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = iter([{}, {"CorralDown": "pending"}, {"CorralDown": "firing"}])
    monkeypatch.setattr(Prometheus, "active", lambda _: next(states, {"CorralDown": "pending"}))
    assert watch.missed("CorralDown") == []
    assert watch.missed("CorralDown") == ["CorralDown did not fire"]
