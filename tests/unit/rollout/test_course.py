"""The course of a rollout: what follows what, what is reverted, which exit code says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from corral.errors import CorralError
from corral.remote.unreached import UnreachedError
from corral.rollout.health import Health
from corral.rollout.journal import Rollout
from corral.rollout.run import Context, Course
from tests.unit.rollout_samples import (
    OLD,
    FakeDriver,
    FakeHealth,
    Silent,
    generation,
    pair,
    report,
    rollout,
)

ABC = ("a", "b", "c")
AT_GATEWAY: dict[str, Any] = {"gateways": ({"host": "gw", "changes": ("weight",)},)}


class FakeGateways:
    """Gateways that are switched as told; notes what they were asked in the driver's list."""

    def __init__(self, asked: list[str]) -> None:
        self.asked = asked
        self.fault: CorralError | None = None
        self.back_fault: CorralError | None = None
        self.changes = True

    def switch(self, name: str, settled: Callable[[str], bool]) -> bool:
        serve = [host for host in ABC if settled(f"{host}/chat")]
        self.asked.append(f"switch {name} for {''.join(serve)}")
        if self.fault:
            raise self.fault
        return self.changes

    def revert(self, name: str) -> None:
        self.asked.append(f"revert {name}")
        if self.back_fault:
            raise self.back_fault


class Fleet:
    """A course over fakes, and what it saved."""

    def __init__(self, driver: FakeDriver | None = None, health: FakeHealth | None = None) -> None:
        self.driver, self.health = driver or FakeDriver(), health or FakeHealth()
        self.saved: list[Rollout] = []
        self.locks: Any = lambda: None
        self.gateways = FakeGateways(self.driver.asked)

    def run(self, begun: Rollout, leave: frozenset[str] = frozenset()) -> Rollout:
        hosts = {name: pair(name) for name in ABC}
        health = cast(Health, self.health)
        context = Context(
            hosts, self.driver.of, health, self.locks, self.saved.append, Silent(), self.gateways,
            verified=("gw",),
        )  # fmt: skip
        return Course(begun, context, leave).run()


def test_waves_follow_each_other_with_a_soak_between_and_a_verification_at_the_end() -> None:
    fleet = Fleet()
    ended = fleet.run(rollout(*ABC))
    assert ended.exit_code == 0
    assert fleet.driver.asked == ["activate a", "activate b", "activate c"]
    a, b, c = ("a/chat", "b/chat", "c/chat")
    assert fleet.health.looks == [((a,), 5), ((a, b), 5), ((a, b, c), 0)]
    # A gateway is as planned once all of its servers are.
    assert fleet.health.gateways == [(), (), ("gw",)]
    assert [r.name for r in ended.reports] == [a, b, c]
    assert ended.ended_at


@pytest.mark.parametrize("outcome", ["reverted", "refused"])
def test_a_failed_host_stops_the_waves_and_all_is_taken_back_in_reverse(outcome: str) -> None:
    fleet = Fleet(FakeDriver({"c": outcome}))
    ended = fleet.run(rollout(*ABC))
    assert ended.exit_code == 10
    assert fleet.driver.asked[3:] == [f"revert b to {OLD}", f"revert a to {OLD}"]
    assert ended.failure == f"c/chat: {outcome}: it is no good"


def test_no_wave_starts_after_a_failed_one() -> None:
    fleet = Fleet(FakeDriver({"a": "reverted"}))
    assert fleet.run(rollout(*ABC)).exit_code == 10
    assert fleet.driver.asked == ["activate a"]


def test_a_failure_can_be_left_as_it_is() -> None:
    fleet = Fleet(FakeDriver({"b": "reverted"}))
    assert fleet.run(rollout(*ABC, on_failure="stop")).exit_code == 20
    assert fleet.driver.asked == ["activate a", "activate b"]
    first = Fleet(FakeDriver({"a": "reverted"}))
    assert first.run(rollout(*ABC, on_failure="stop")).exit_code == 10


@pytest.mark.parametrize(
    ("outcomes", "reverts"),
    [({"b": "revert failed"}, {}), ({"b": "silent"}, {}), ({"c": "reverted"}, {"b": "silent"}),
     ({"c": "reverted"}, {"b": "refused"}), ({"c": "reverted"}, {"b": "reverted"})],
)  # fmt: skip
def test_what_nobody_can_vouch_for_is_mixed_and_the_others_are_taken_back(
    outcomes: dict[str, str], reverts: dict[str, str]
) -> None:
    fleet = Fleet(FakeDriver(outcomes, reverts))
    assert fleet.run(rollout(*ABC)).exit_code == 20
    assert fleet.driver.asked[-1] == f"revert a to {OLD}"


@pytest.mark.parametrize("look", [0, 1, 2])
def test_a_soak_or_a_verification_that_fails_takes_all_back(look: int) -> None:
    fleet = Fleet(health=FakeHealth({look: ["a/chat: completion: 500"]}))
    ended = fleet.run(rollout(*ABC))
    assert ended.exit_code == 10
    assert "a/chat: completion: 500" in ended.failure
    assert fleet.driver.asked[-1] == f"revert a to {OLD}"
    assert len([words for words in fleet.driver.asked if "revert" in words]) == look + 1


def test_a_host_that_another_rollout_holds_stops_it() -> None:
    fleet = Fleet()
    held = iter([None, CorralError("b", "ann rolls out", "wait")])

    def locks() -> None:
        if error := next(held):
            raise error

    fleet.locks = locks
    assert fleet.run(rollout(*ABC)).exit_code == 10
    assert fleet.driver.asked == ["activate a", f"revert a to {OLD}"]


def test_instances_of_one_host_are_taken_back_in_reverse_as_well() -> None:
    begun = rollout("a", "b")
    second = begun.steps[0].model_copy(update={"from_generation": "older"})
    steps = (begun.steps[0], second.model_copy(update={"instance": "chat"}), begun.steps[1])
    fleet = Fleet(FakeDriver({"b": "reverted"}))
    fleet.run(begun.model_copy(update={"steps": steps}))
    assert fleet.driver.asked[-2:] == ["revert a to older", f"revert a to {OLD}"]


def test_what_served_nothing_before_stays() -> None:
    begun = rollout("a", "b")
    first = begun.steps[0].model_copy(update={"from_generation": None})
    fleet = Fleet(FakeDriver({"b": "reverted"}))
    ended = fleet.run(begun.model_copy(update={"steps": (first, begun.steps[1])}))
    assert ended.exit_code == 10
    assert fleet.driver.asked == ["activate a", "activate b"]


def test_a_killed_one_goes_on_where_it_stopped() -> None:
    fleet = Fleet()
    done = rollout(*ABC, reports=(report("a"),), begun=("a/chat", "b/chat"))
    assert fleet.run(done).exit_code == 0
    assert fleet.driver.asked == ["activate b", "activate c"]


def test_what_was_kept_while_nobody_listened_is_taken_back_all_the_same() -> None:
    fleet = Fleet(FakeDriver({"a": "unchanged", "b": "reverted"}))
    assert fleet.run(rollout("a", "b", begun=("a/chat",))).exit_code == 10
    assert fleet.driver.asked[-1] == f"revert a to {OLD}"


def test_one_killed_on_its_way_back_goes_on_with_that() -> None:
    back = report("b", to=OLD, serving=OLD)
    begun = rollout(*ABC, failure="no good", reports=(report("a"), report("b")), reverts=(back,))
    fleet = Fleet()
    assert fleet.run(begun).exit_code == 10
    assert fleet.driver.asked == [f"revert a to {OLD}"]


def test_what_changed_again_meanwhile_is_left() -> None:
    begun = rollout("a", "b", failure="no good", reports=(report("a"), report("b")))
    fleet = Fleet()
    assert fleet.run(begun, frozenset({"b/chat"})).exit_code == 10
    assert fleet.driver.asked == [f"revert a to {OLD}"]


def test_a_plan_that_changed_since_is_no_reason_to_switch_to_it() -> None:
    begun = rollout("a")
    other = begun.steps[0].model_copy(update={"to_generation": "other"})
    fleet = Fleet()
    ended = fleet.run(begun.model_copy(update={"steps": (other,)}))
    assert (ended.exit_code, fleet.driver.asked) == (10, [])
    assert "its plan has changed" in ended.failure


def test_the_journal_is_saved_before_and_after_each_step() -> None:
    fleet = Fleet()
    fleet.run(rollout("a"))
    saved = [(len(one.begun), len(one.reports), one.exit_code) for one in fleet.saved]
    assert saved == [(0, 0, None), (1, 0, None), (1, 1, None), (1, 1, 0)]
    assert fleet.saved[-1].reports[0].to == generation("a")


def test_gateways_change_once_the_instances_have() -> None:
    fleet = Fleet()
    ended = fleet.run(rollout("a", "b", **AT_GATEWAY))
    assert fleet.driver.asked == ["activate a", "activate b", "switch gw for abc"]
    assert (ended.exit_code, ended.gateways_switched) == (0, ("gw",))
    # Gone on with, it is not done again.
    begun = ended.model_copy(update={"exit_code": None})
    again = Fleet()
    assert again.run(begun).exit_code == 0
    assert again.driver.asked == []


def test_servers_of_a_host_that_was_left_out_stay_where_a_gateway_finds_them() -> None:
    fleet = Fleet()
    assert fleet.run(rollout("a", left_out=("b",), **AT_GATEWAY)).exit_code == 0
    assert fleet.driver.asked[-1] == "switch gw for ac"


def test_a_gateway_alone_can_change() -> None:
    fleet = Fleet()
    assert fleet.run(rollout(**AT_GATEWAY)).exit_code == 0
    assert fleet.driver.asked == ["switch gw for abc"]


def test_a_gateway_that_takes_itself_back_takes_the_instances_back_too() -> None:
    fleet = Fleet()
    fleet.gateways.fault = CorralError("gw", "small: models: 401; ab serves again", "see it")
    ended = fleet.run(rollout("a", **AT_GATEWAY))
    assert fleet.driver.asked == ["activate a", "switch gw for abc", f"revert a to {OLD}"]
    assert (ended.exit_code, ended.gateways_begun) == (10, ())


def test_what_fails_after_a_gateway_changed_puts_it_back_before_the_instances() -> None:
    fleet = Fleet(health=FakeHealth({0: ["a/chat: completion: 500"]}))
    ended = fleet.run(rollout("a", **AT_GATEWAY))
    assert fleet.driver.asked[2:] == ["revert gw", f"revert a to {OLD}"]
    assert (ended.exit_code, ended.gateways_reverted) == (10, ("gw",))
    failing = Fleet(health=FakeHealth({0: ["a/chat: completion: 500"]}))
    failing.gateways.back_fault = CorralError("gw", "not reached", "see it")
    assert failing.run(rollout("a", **AT_GATEWAY)).exit_code == 20


def test_a_gateway_that_is_silent_leaves_it_unclear() -> None:
    fleet = Fleet()
    fleet.gateways.fault = UnreachedError("gw", "not reached", "see it")
    ended = fleet.run(rollout("a", **AT_GATEWAY))
    assert (ended.exit_code, ended.unclear()) == (20, ["gw"])


def test_a_gateway_that_followed_its_servers_has_nothing_to_take_back() -> None:
    fleet = Fleet()
    fleet.gateways.changes = False
    ended = fleet.run(rollout("a", **AT_GATEWAY))
    assert (ended.exit_code, ended.gateways_begun, ended.gateways_switched) == (0, (), ())
