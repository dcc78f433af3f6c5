"""Gateways in front of an instance that changes: drained where others serve, always given back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from corral.engines.routes import CHAT_ROUTES
from corral.errors import CorralError
from corral.gateway import control
from corral.gateway.control import Drained, ServerState
from corral.gateway.moves import Place
from corral.plan.gateway import GatewayPlan, HealthCheck, Member, Pool
from corral.plan.instance import InstancePlan
from corral.planning.fleet import plan_fleet
from corral.planning.gateways import pools
from corral.rollout import traffic
from corral.rollout.traffic import Gateways
from tests.samples import CHAT, host, plan, planner

INSTANCE = plan(CHAT).instances[0]


def server(name: str, *, up: bool = True, pool: str = "small") -> ServerState:
    return ServerState(
        server=name.replace("/", "_"), pool=pool, up=up, admin="ready", weight=100, sessions=0,
        check="L7OK", until=None,
    )  # fmt: skip


class Gates:
    """Gateways that answer as told; notes what they are asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **states: Any) -> None:
        self.log: list[str] = []
        self.said: list[str] = []
        self.faults: dict[str, CorralError] = {}
        self.passes = True

        def state(gateway: Any) -> list[ServerState]:
            found = states[gateway.name]
            if isinstance(found, Exception):
                raise found
            return list(found)

        def note(what: str, gateway: Any, name: str) -> None:
            self.log.append(f"{what} {name} at {gateway.name}")
            if what in self.faults:
                raise self.faults[what]

        def drain(gateway: Any, name: str, lease: int, *, limit_seconds: int) -> Drained:
            assert lease == traffic.LEASE_SECONDS
            waits = {INSTANCE.activation.drain_seconds: "drain", 0: "renew"}
            note(waits[limit_seconds], gateway, name)
            return Drained(sessions_left=0, seconds=0)

        def ready(gateway: Any, name: str) -> bool:
            note("ready", gateway, name)
            return self.passes

        monkeypatch.setattr(control, "state", state)
        monkeypatch.setattr(control, "drain", drain)

        def release(gateway: Any, name: str) -> None:
            note("release", gateway, name)

        monkeypatch.setattr(control, "ready", ready)
        monkeypatch.setattr(control, "release", release)
        members = tuple(
            Member(name=f"{h}/chat", server=f"{h}_chat", address=h, port=1, weight=w)
            for h, w in (("a", 100), ("b", 100), ("c", 0))
        )
        pool = Pool(
            alias="small", name="small", port=80, members=members, open=CHAT_ROUTES, closed=(),
            health=HealthCheck(path="/health"),
        )  # fmt: skip
        gateway = GatewayPlan(
            folder="/f", address="::", metrics_port=None, tls=False, pools=(pool,)
        )
        self.plans = dict.fromkeys(states, gateway)
        self.gateways = Gateways(
            tuple(host(name=name) for name in states), self.plans, self.said.append
        )

    def drained(self, instance: InstancePlan = INSTANCE) -> bool:
        with self.gateways.drained("a/chat", instance) as drained:
            self.log.append("changed")
            return drained


BOTH = [server("a/chat"), server("b/chat")]


def test_a_server_is_drained_where_another_serves_and_is_ready_again_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gates = Gates(monkeypatch, gw1=BOTH, gw2=BOTH)
    assert gates.drained() is True
    assert gates.log == [
        "drain a/chat at gw1", "drain a/chat at gw2", "changed",
        "ready a/chat at gw1", "ready a/chat at gw2",
    ]  # fmt: skip


def test_it_is_ready_again_after_a_failure_too(monkeypatch: pytest.MonkeyPatch) -> None:
    gates = Gates(monkeypatch, gw=BOTH)
    with pytest.raises(ZeroDivisionError), gates.gateways.drained("a/chat", INSTANCE):
        raise ZeroDivisionError
    assert gates.log[-1] == "ready a/chat at gw"


def test_a_changed_server_that_a_gateway_does_not_take_back_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gates = Gates(monkeypatch, gw=BOTH)
    gates.passes = False
    with pytest.raises(CorralError, match="a/chat no longer passes this gateway's checks"):
        gates.drained()
    assert gates.log[-1] == "ready a/chat at gw"
    # What went wrong on the host is not hidden by it.
    with pytest.raises(ZeroDivisionError), gates.gateways.drained("a/chat", INSTANCE):
        raise ZeroDivisionError


@pytest.mark.parametrize(("left", "taken"), [(40, True), (80, False), (None, False)])
def test_a_drain_that_a_killed_controller_left_is_renewed(
    monkeypatch: pytest.MonkeyPatch, left: float | None, taken: bool
) -> None:
    drained = {"admin": "drain", "until": "noon", "lease_seconds": left}
    gates = Gates(monkeypatch, gw=[BOTH[0].model_copy(update=drained), BOTH[1]])
    assert gates.drained() is True
    asked = ["drain a/chat at gw", "changed", "release a/chat at gw"]
    assert gates.log == (asked if taken else ["changed"])


@pytest.mark.parametrize(
    "other",
    [
        [server("a/chat")],
        [server("a/chat"), server("b/chat", up=False)],
        [server("a/chat"), server("b/chat", pool="other")],
    ],
)
def test_the_last_server_of_an_alias_is_drained_nowhere(
    monkeypatch: pytest.MonkeyPatch, other: list[ServerState]
) -> None:
    gates = Gates(monkeypatch, gw1=BOTH, gw2=other)
    assert gates.drained() is False
    assert gates.log == ["drain a/chat at gw1", "ready a/chat at gw1", "changed"]


def test_a_gateway_that_does_not_answer_leaves_clients_to_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gates = Gates(monkeypatch, gw1=BOTH, gw2=CorralError("gw2", "not reached", "x"))
    assert gates.drained() is False
    assert gates.log == ["drain a/chat at gw1", "ready a/chat at gw1", "changed"]
    assert gates.said == ["a/chat is not drained: not reached"]
    refusing = Gates(monkeypatch, gw1=BOTH)
    refusing.faults["drain"] = CorralError("gw1", "no socket", "x")
    assert refusing.drained() is False
    assert refusing.log == ["drain a/chat at gw1", "ready a/chat at gw1", "changed"]


def test_a_gateway_that_is_lost_meanwhile_is_told_with_its_lease(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gates = Gates(monkeypatch, gw=BOTH)
    gates.faults["ready"] = CorralError("gw", "not reached", "x")
    assert gates.drained() is True
    assert gates.said == ["a/chat: not reached; gw sends it requests again within 60 s"]


def test_leases_are_renewed_while_it_changes_and_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(traffic, "_RENEW_SECONDS", 0.01)
    gates = Gates(monkeypatch, gw1=BOTH, gw2=BOTH)
    with gates.gateways.drained("a/chat", INSTANCE):
        wait_for(lambda: gates.log.count("renew a/chat at gw2") > 2)
    assert gates.log[-2:] == ["ready a/chat at gw1", "ready a/chat at gw2"]
    ended = list(gates.log)
    time.sleep(0.05)
    assert gates.log == ended


def test_a_lease_that_cannot_be_renewed_is_told_and_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(traffic, "_RENEW_SECONDS", 0.01)
    gates = Gates(monkeypatch, gw=BOTH)
    gates.faults["renew"] = CorralError("gw", "not reached", "x")
    with gates.gateways.drained("a/chat", INSTANCE):
        wait_for(lambda: len(gates.said) > 1)
    assert set(gates.said) == {"a/chat may get requests from gw: not reached"}


def wait_for(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("kept_away", [{"admin": "drain"}, {"admin": "maint"}, {"weight": 0}])
def test_what_an_operator_keeps_away_is_left_so(
    monkeypatch: pytest.MonkeyPatch, kept_away: dict[str, Any]
) -> None:
    drained = server("a/chat").model_copy(update=kept_away)
    gates = Gates(monkeypatch, gw=[drained, server("b/chat")])
    assert gates.drained() is True
    assert gates.log == ["changed"]


@pytest.mark.parametrize("others", [[server("b/chat")], [server("b/chat", up=False)], []])
def test_a_server_whose_checks_fail_is_drained_before_they_pass_again(
    monkeypatch: pytest.MonkeyPatch, others: list[ServerState]
) -> None:
    gates = Gates(monkeypatch, gw=[server("a/chat", up=False), *others])
    gates.passes = False
    assert gates.drained() is True
    assert gates.log == ["drain a/chat at gw", "changed", "release a/chat at gw"]


def test_a_switch_side_by_side_needs_no_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    gates = Gates(monkeypatch, gw=BOTH)
    ways = INSTANCE.activation.model_copy(update={"how": "side-by-side"})
    assert gates.drained(INSTANCE.model_copy(update={"activation": ways})) is False
    assert gates.log == ["changed"]


@pytest.mark.parametrize(
    ("rows", "how", "drained"),
    [
        (BOTH, "auto", True),
        (BOTH, "in-place", True),
        (BOTH, "side-by-side", False),
        ([server("a/chat")], "auto", False),
        ([server("a/chat"), server("b/chat", up=False)], "auto", False),
        ([server("a/chat", up=False)], "auto", True),
        (CorralError("gw", "not reached", "x"), "auto", False),
    ],
)
def test_whether_it_would_be_drained_is_known_beforehand(
    monkeypatch: pytest.MonkeyPatch, rows: Any, how: str, drained: bool
) -> None:
    gates = Gates(monkeypatch, gw=rows)
    ways = INSTANCE.activation.model_copy(update={"how": how})
    instance = INSTANCE.model_copy(update={"activation": ways})
    assert gates.gateways.can_drain("a/chat", instance) is drained
    assert gates.log == []
    assert gates.drained(instance) is drained
    assert gates.gateways.can_drain("d/chat", instance) is False


PLACE = Place(alias="small", address="0.0.0.0", port=2)


@pytest.mark.parametrize(
    ("up", "check", "found"),
    [
        (True, "L7OK HTTP content check matched", True),
        (True, "* L7OK HTTP content check matched", True),
        # As a new line begins: in the state that the old place has.
        (True, "INI", False),
        (True, "L4CON Connection refused", False),
        (False, "L7OK HTTP content check matched", False),
    ],
)
def test_a_server_that_moves_is_found_once_checks_pass_at_its_new_place(
    monkeypatch: pytest.MonkeyPatch, up: bool, check: str, found: bool
) -> None:
    row = server("a/chat", up=up).model_copy(update={"check": check, "place": "a:2"})
    new = row.model_copy(update={"server": "a_chat:next"})
    gates = Gates(monkeypatch, gw1=BOTH, gw2=[*BOTH, new])
    why = None if found else f"gw2 does not reach it at a:2 yet ({check})"
    assert gates.gateways.missing("a/chat", PLACE) == why
    assert gates.gateways.missing("b/chat", PLACE) is None


def test_a_gateway_that_does_not_answer_holds_no_move_up(monkeypatch: pytest.MonkeyPatch) -> None:
    gates = Gates(monkeypatch, gw=CorralError("gw", "not reached", "x"))
    assert gates.gateways.missing("a/chat", PLACE) is None
    assert gates.said == ["gw: cannot check whether it reaches a/chat: not reached"]


def test_an_instance_behind_no_gateway_is_left_to_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    gates = Gates(monkeypatch, gw=BOTH)
    with gates.gateways.drained("d/chat", INSTANCE) as drained:
        assert drained is False
    assert gates.log == []


def test_members_without_weight_are_no_part_of_a_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    gates = Gates(monkeypatch, gw=BOTH)
    assert pools(gates.plans) == {"small at gw": ["a", "b"]}


def test_an_inventory_without_gateways_has_no_pools() -> None:
    fleet = plan_fleet([host(CHAT)], planner())
    assert fleet.pools == {}
    found = traffic.traffic(fleet, print)
    with found.drained("lab-1/chat", INSTANCE) as drained:
        assert drained is False
