"""An instance that is stopped or restarted behind gateways is drained first, never the last one."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from corral.errors import CorralError
from corral.gateway import control
from corral.gateway.control import Drained, ServerState
from corral.plan.gateway import server_name
from corral.rollout import pausing
from corral.rollout.pausing import Gateways
from corral.rollout.traffic import LEASE_SECONDS
from tests.samples import host

COMMAND = "corral stop a/chat"


def server(name: str, **changes: Any) -> ServerState:
    row = {
        "server": server_name(name), "pool": "small", "up": True, "admin": "ready", "weight": 100,
        "sessions": 0, "check": "L7OK", "until": None, **changes,
    }  # fmt: skip
    return ServerState.model_validate(row)


class Fronts:
    """Gateways that answer as a test says; ``log``: what they are asked to do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **rows: Any) -> None:
        self.rows = rows
        self.log: list[str] = []
        self.said: list[str] = []
        self.left = 0
        for name in ("state", "drain", "release"):
            monkeypatch.setattr(control, name, getattr(self, f"_{name}"))
        monkeypatch.setattr(pausing, "_SEEN_SECONDS", 0)

    def gateways(self, *, force: bool = False) -> Gateways:
        hosts = tuple(host(name=name) for name in self.rows)
        return Gateways(hosts, COMMAND, self.said.append, force)

    def _state(self, gateway: Any) -> list[ServerState]:
        found = self.rows[gateway.name]
        if isinstance(found, CorralError):
            raise found
        return list(found)

    def _drain(self, gateway: Any, name: str, lease: int, *, limit_seconds: int, last: bool) -> Any:
        assert lease == LEASE_SECONDS
        more = ", the last" if last else ""
        self.log.append(f"drain {name} at {gateway.name} for {limit_seconds} s{more}")
        return Drained(sessions_left=self.left, seconds=0.5)

    def _release(self, gateway: Any, name: str) -> None:
        self.log.append(f"release {name} at {gateway.name}")


BOTH = [server("a/chat"), server("b/chat")]
ALONE = [server("a/chat"), server("b/chat", up=False)]


def test_it_is_drained_everywhere_and_brought_back(monkeypatch: pytest.MonkeyPatch) -> None:
    fronts = Fronts(monkeypatch, one=BOTH, two=BOTH, other=[server("c/chat")])
    fronts.gateways().refuse_last(["a/chat"], together=True)
    with fronts.gateways().drained("a/chat", 7):
        fronts.log.append("restarted")
    assert fronts.log == [
        "drain a/chat at one for 7 s", "drain a/chat at two for 7 s", "restarted",
        "release a/chat at one", "release a/chat at two",
    ]  # fmt: skip


def test_it_is_brought_back_after_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    fronts = Fronts(monkeypatch, one=BOTH)
    with pytest.raises(KeyboardInterrupt), fronts.gateways().drained("a/chat", 7):
        raise KeyboardInterrupt
    assert fronts.log[-1] == "release a/chat at one"


@pytest.mark.parametrize(
    ("rows", "servers", "together", "message"),
    [
        (ALONE, ["a/chat"], True, "a/chat: is the last server of small at one that serves;"),
        (ALONE, ["a/chat"], False, "a/chat: is the last server of small at one that serves;"),
        (
            BOTH, ["a/chat", "b/chat"], True,
            "a/chat and b/chat: are the last servers of small at one that serve;",
        ),
        ([server("a/chat"), server("b/chat", pool="x")], ["a/chat"], True, "last server of small"),
        ([server("a/chat"), server("b/chat", admin="drain")], ["a/chat"], True, "last server of"),
        ([server("a/chat"), server("b/chat", weight=0)], ["a/chat"], True, "last server of small"),
    ],
)  # fmt: skip
def test_the_last_that_serve_are_not_taken_away(
    rows: list[ServerState],
    servers: list[str],
    together: bool,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fronts = Fronts(monkeypatch, two=BOTH + [server("c/chat")], one=rows)
    with pytest.raises(CorralError) as fault:
        fronts.gateways().refuse_last(servers, together=together)
    assert message in str(fault.value)
    assert "nothing was stopped" in str(fault.value)
    assert f"or run `{COMMAND} --force`" in str(fault.value)
    assert fronts.log == []
    fronts.gateways(force=True).refuse_last(servers, together=together)


def test_others_may_be_restarted_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    fronts = Fronts(monkeypatch, one=BOTH)
    fronts.gateways().refuse_last(["a/chat", "b/chat"], together=False)


@pytest.mark.parametrize("kept_away", [{"admin": "drain"}, {"admin": "maint"}, {"weight": 0}])
def test_what_an_operator_keeps_away_is_left_so(
    monkeypatch: pytest.MonkeyPatch, kept_away: dict[str, Any]
) -> None:
    fronts = Fronts(monkeypatch, one=[server("a/chat", **kept_away), server("b/chat")])
    fronts.gateways().refuse_last(["a/chat"], together=True)
    with fronts.gateways().drained("a/chat", 7):
        pass
    assert fronts.log == []


def test_a_server_whose_checks_fail_is_drained_before_they_pass_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fronts = Fronts(monkeypatch, one=[server("a/chat", up=False), server("b/chat")])
    fronts.gateways().refuse_last(["a/chat"], together=True)
    with fronts.gateways().drained("a/chat", 7):
        pass
    assert fronts.log == ["drain a/chat at one for 7 s", "release a/chat at one"]


def test_requests_in_flight_keep_it_from_being_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    fronts = Fronts(monkeypatch, one=BOTH)
    fronts.left = 2
    message = "2 requests by way of one were still in flight after 7 s; it was not stopped"
    with pytest.raises(CorralError, match=message), fronts.gateways().drained("a/chat", 7):
        pytest.fail("it was touched")
    assert fronts.log == ["drain a/chat at one for 7 s", "release a/chat at one"]
    with fronts.gateways(force=True).drained("a/chat", 7):
        fronts.log.append("stopped")
    assert fronts.log[-3:] == [
        "drain a/chat at one for 7 s, the last", "stopped", "release a/chat at one",
    ]  # fmt: skip


def test_a_silent_gateway_keeps_it_from_being_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    fronts = Fronts(monkeypatch, one=BOTH, two=CorralError("two", "not reached", "x"))
    for refused in (
        lambda: fronts.gateways().refuse_last(["a/chat"], together=True),
        lambda: fronts.gateways().drained("a/chat", 7).__enter__(),
    ):
        with pytest.raises(CorralError, match="not reached") as fault:
            refused()
        assert f"`{COMMAND} --force`" in str(fault.value)
    assert fronts.log == ["drain a/chat at one for 7 s", "release a/chat at one"]
    with fronts.gateways(force=True).drained("a/chat", 7):
        fronts.log.append("stopped")
    assert fronts.log[-2:] == ["stopped", "release a/chat at one"]
    assert "a/chat is not drained: not reached" in " ".join(fronts.said)


def test_a_silent_gateway_in_front_of_others_keeps_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fronts = Fronts(monkeypatch, one=BOTH, two=CorralError("two", "not reached", "x"))
    asked = dataclasses.replace(
        fronts.gateways(), may_have=lambda gateway, _: gateway.name == "one"
    )
    asked.refuse_last(["a/chat"], together=True)
    with asked.drained("a/chat", 7):
        fronts.log.append("stopped")
    assert fronts.log == ["drain a/chat at one for 7 s", "stopped", "release a/chat at one"]
    assert fronts.said[0] == "two does not answer, and has no a/chat: not reached"
    assert asked.after("a/chat")
    # One of several is enough.
    one_of_two = dataclasses.replace(asked, may_have=lambda _, name: name == "b/chat")
    with pytest.raises(CorralError, match="would fail without b/chat"):
        one_of_two.refuse_last(["a/chat", "b/chat"], together=False)
    assert not one_of_two.after("b/chat")


ENDS_SOON, ENDS_LATER = (
    [server("a/chat", admin="drain", until="noon", lease_seconds=left), server("b/chat")]
    for left in (LEASE_SECONDS - 20, LEASE_SECONDS + 20)
)


def test_a_drain_that_a_killed_command_left_does_not_end_in_the_middle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fronts = Fronts(monkeypatch, one=ENDS_SOON, two=ENDS_LATER)
    with fronts.gateways().drained("a/chat", 7):
        fronts.log.append("restarted")
    assert fronts.log == [
        "drain a/chat at one for 7 s", "restarted", "release a/chat at one",
    ]  # fmt: skip


def test_a_drain_that_somebody_may_still_need_is_not_ended_by_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fronts = Fronts(monkeypatch, one=ENDS_SOON, two=BOTH)
    refused = CorralError("a/chat", "a rollout holds this host", "wait")
    with pytest.raises(CorralError, match="holds"), fronts.gateways().drained("a/chat", 7):
        raise refused
    assert [line for line in fronts.log if "release" in line] == ["release a/chat at two"]


def test_what_a_gateway_still_takes_for_up_stays_away_until_its_lease_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fronts = Fronts(monkeypatch, one=BOTH, two=BOTH)
    with fronts.gateways().drained("a/chat", 7) as drained:
        fronts.rows["two"] = [server("a/chat", up=False, admin="drain"), server("b/chat")]
        drained.stays_down()
    assert [line for line in fronts.log if "release" in line] == ["release a/chat at two"]


@pytest.mark.parametrize(
    ("row", "good", "message"),
    [
        ({}, True, ""),
        ({"up": False, "check": "L4CON"}, False, "a/chat does not pass its checks: L4CON"),
        ({"admin": "drain", "until": "noon"}, True, "is drained until noon: `corral gateway ready"),
        ({"server": "x"}, True, ""),
    ],
)
def test_what_a_gateway_makes_of_a_started_server_is_told(
    row: dict[str, Any], good: bool, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fronts = Fronts(monkeypatch, one=[server("a/chat", **row)])
    assert fronts.gateways().after("a/chat") is good
    assert message in " ".join(fronts.said)
    assert bool(fronts.said) is bool(message)
