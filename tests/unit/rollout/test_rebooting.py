"""A host reboots without its traffic, and the next one waits until it serves again."""

from __future__ import annotations

import pytest

from corral.errors import CorralError
from corral.gateway import control
from corral.gateway.control import ServerState
from corral.rollout import pausing
from corral.rollout.rebooting import drained_host
from tests.samples import CHAT as SPEC
from tests.samples import plan
from tests.unit.rollout.test_pausing import ALONE, BOTH, Fronts, server

CHAT = [plan(SPEC).instances[0].model_copy(update={"ready_timeout_seconds": 0})]
DRAINS = ["drain a/chat at one for 60 s", "rebooted", "release a/chat at one"]


def rebooted(fronts: Fronts, afterwards: list[ServerState] | None = None) -> None:
    with drained_host(fronts.gateways(), "a", CHAT):
        fronts.log.append("rebooted")
        fronts.rows["one"] = afterwards or fronts.rows["one"]


def test_its_servers_are_drained_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    fronts = Fronts(monkeypatch, one=BOTH, other=[server("c/chat")])
    rebooted(fronts)
    assert fronts.log == DRAINS


def test_the_last_server_of_an_alias_keeps_its_host_up(monkeypatch: pytest.MonkeyPatch) -> None:
    fronts = Fronts(monkeypatch, one=ALONE)
    with pytest.raises(CorralError, match="last server of small") as fault:
        rebooted(fronts)
    assert "`corral stop a/chat --force`" in str(fault.value)
    assert fronts.log == []


def test_a_server_that_does_not_serve_again_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    fronts = Fronts(monkeypatch, one=BOTH)
    with pytest.raises(CorralError, match="a/chat: does not serve behind its gateways 0 s after"):
        rebooted(fronts, [server("a/chat", up=False), server("b/chat")])
    assert fronts.log == DRAINS


def test_the_next_host_waits_for_a_server_that_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    fronts = Fronts(monkeypatch, one=BOTH)
    # Twice before the reboot, then until it serves.
    states = [True, True, False, False, True]
    monkeypatch.setattr(pausing, "_PAUSE_SECONDS", 0)
    monkeypatch.setattr(
        control,
        "state",
        lambda _: [server("a/chat", up=states.pop(0)), server("b/chat")],
    )
    slow = [CHAT[0].model_copy(update={"ready_timeout_seconds": 60})]
    with drained_host(fronts.gateways(), "a", slow):
        pass
    assert states == []


def test_a_server_that_did_not_serve_before_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fronts = Fronts(monkeypatch, one=[server("a/chat", up=False), server("b/chat")])
    rebooted(fronts)
    assert fronts.log == DRAINS
