"""deploy.py on @fake hosts: which host is activated when, and what prevents the next wave."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from pyinfra.api.exceptions import PyinfraError

from corral.host.activation_report import Report
from tests.operations.fleet import Fleet, asked, bare_host, failed, kept, settled_host, steps

ALL_AT_ONCE: dict[str, Any] = {"waves": ("100%",)}
ACTIVATED = ["history", "start activate-chat", "poll activate-chat"]


def three(fleet: Fleet, **answers: Any) -> None:
    """Hosts of three waves; ``answers`` are those of the first."""
    for name in ("one", "two", "three"):
        fleet.add(name, bare_host(fleet, name), **(answers if name == "one" else {}))


def activated(state: Any, name: str) -> bool:
    return "start activate-chat" in steps(state, name)


def reverted(host: str) -> str:
    return kept(host, "chat", outcome="reverted", reason="it died at start", log="no such model")


def test_waves_follow_each_other(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def reported(report: Report) -> list[str]:
        order.append(report.host)
        return ["kept"]

    three(fleet)
    monkeypatch.setattr("operations.instance.format_report", reported)
    state = fleet.deploy()
    assert failed(state) == set()
    assert order[:2] == ["@fake/one"] * 2
    # Both hosts of one wave, in parallel.
    assert sorted(order[2:]) == ["@fake/three"] * 2 + ["@fake/two"] * 2


def test_a_failed_wave_is_the_last_one_and_the_hosts_after_it_are_left_alone(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    three(fleet, **{"poll activate-chat": reverted("one")})
    state = fleet.deploy()
    assert failed(state) == {"one"}
    assert steps(state, "one")[-3:] == ACTIVATED
    for name in ("two", "three"):
        assert steps(state, name)[-3:] == ["stage", "stage", "reserve"]
    for said in ("chat: new reverted", "it died at start", "no such model"):
        assert f"[@fake/one] {said}" in " ".join(caplog.text.split())
    assert caplog.text.count("wave 2 does not start: @fake/one failed") == 1


def test_hosts_of_one_wave_do_not_wait_for_each_other(fleet: Fleet) -> None:
    three(fleet, **{"poll activate-chat": reverted("one")})
    for data in fleet.hosts.values():
        data.update(ALL_AT_ONCE)
    state = fleet.deploy()
    assert failed(state) == {"one"}
    assert [steps(state, name)[-1] for name in ("two", "three")] == ["prune", "prune"]


def test_a_host_that_is_not_staged_stops_every_wave_unless_told_to_go_on_without(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    fleet.add("bad", bare_host(fleet, "bad", systemd=False))
    three(fleet)
    state = fleet.deploy()
    assert failed(state) == {"bad"}
    assert not [name for name in ("one", "two", "three") if activated(state, name)]
    assert caplog.text.count("wave 1 does not start: @fake/bad failed before") == 1
    assert "--data without_failed=true" in caplog.text
    for data in fleet.hosts.values():
        data["without_failed"] = "true"
    again = fleet.deploy()
    assert failed(again) == {"bad"}
    assert [steps(again, name)[-1] for name in ("one", "two", "three")] == ["prune"] * 3


def test_going_on_without_one_host_does_not_forgive_another(fleet: Fleet) -> None:
    three(fleet, **{"poll activate-chat": reverted("one")})
    fleet.add("bad", bare_host(fleet, "bad", systemd=False))
    for data in fleet.hosts.values():
        data["without_failed"] = "true"
    state = fleet.deploy()
    assert failed(state) == {"bad", "one"}
    assert not activated(state, "two")


def test_a_canary_changes_first_and_alone(fleet: Fleet) -> None:
    three(fleet)
    fleet.add("bird", bare_host(fleet, "bird"), **{"poll activate-chat": reverted("bird")})
    fleet.hosts["bird"]["canary"] = True
    state = fleet.deploy()
    assert failed(state) == {"bird"}
    assert not [name for name in ("one", "two", "three") if activated(state, name)]


def test_hosts_with_nothing_to_do_take_no_place_in_a_wave(fleet: Fleet) -> None:
    for name in ("a", "b", "c"):
        fleet.add(name, settled_host(fleet, name))
    fleet.add("late", bare_host(fleet, "late"), **{"poll activate-chat": reverted("late")})
    fleet.add("later", bare_host(fleet, "later"))
    state = fleet.deploy()
    assert failed(state) == {"late"}
    assert not activated(state, "later")
    assert steps(state, "a")[-1] == "check"


def test_staging_only_touches_no_service(fleet: Fleet) -> None:
    three(fleet)
    for data in fleet.hosts.values():
        data["stage_only"] = "true"
    state = fleet.deploy()
    assert failed(state) == set()
    assert {steps(state, name)[-1] for name in ("one", "two", "three")} == {"reserve"}


@pytest.mark.parametrize("option", ["--no-wait", "--serial"])
def test_hosts_that_do_not_wait_for_each_other_are_refused(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    fleet.add("good", settled_host(fleet, "good"))
    monkeypatch.setattr(sys, "argv", ["pyinfra", "inventories/lab.py", "deploy.py", option])
    with pytest.raises(PyinfraError, match=option):
        fleet.deploy()


def test_bad_waves_stop_the_run_before_any_change(fleet: Fleet) -> None:
    fleet.add("one", bare_host(fleet, "one"))
    fleet.hosts["one"]["waves"] = ("10",)
    state = fleet.connect()
    with pytest.raises(PyinfraError, match='"waves" has'):
        fleet.deploy(state)
    assert len(asked(state, "one")) == 1
