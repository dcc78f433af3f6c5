"""The driver of activations: what it asks of a host, and what it makes of silence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from corral.errors import CorralError
from corral.gateway.moves import Place
from corral.host.activation_report import Report, format_report
from corral.host.state import HostState, InstanceState
from corral.plan.instance import InstancePlan
from corral.remote.client import HelperClient
from corral.remote.progress import Progress, ProgressLines
from corral.remote.unreached import UnreachedError
from corral.rollout.activation import Driver
from tests.samples import CHAT, LONG, host, planner
from tests.unit.rollout_samples import OLD, FakeHelper, report

HOST = host(CHAT, LONG, name="a")
PLAN = planner().plan_host(HOST)
CHAT_PLAN = PLAN.instances[0]
NEW = CHAT_PLAN.generation
CUT = UnreachedError("a", "not reached (cut)", "wait")
NO_RESULT = "it ended without a result (killed, or a reboot). Next: run the same deploy again"


def news(phase: str = "", detail: str = "") -> dict[str, Any]:
    named = {"name": phase, "seconds": 1.5, "detail": detail} if phase else None
    return {"running": True, "ok": False, "error": "", "answer": None, "offset": 7, "tail": [],
            "phase": named, "unsettled": False}  # fmt: skip


def ended(answer: dict[str, Any] | None, error: str = "") -> dict[str, Any]:
    return {**news(), "running": False, "ok": not error, "answer": answer, "error": error}


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> FakeHelper:
    answers: dict[str, list[Any]] = {
        "history": [[]], "start": [{"joined": False}], "poll": [ended(report("a"))],
        "confirm": [{"confirmed": True}],
    }  # fmt: skip
    helper = FakeHelper(answers)
    monkeypatch.setattr(HelperClient, "ask", helper.ask)
    monkeypatch.setattr("time.sleep", lambda _: None)
    return helper


def host_state(*, active: str, installed: str) -> dict[str, Any]:
    """Of an instance that is not as planned."""
    chat = InstanceState(
        active=active, sub="", pid=0, restarts=0, since="", installed_generation=installed,
        proved_generation=None, key_digest=None, staged=True, serves=False,
    )  # fmt: skip
    return HostState(instances={"chat": chat}).model_dump(mode="json")


class Clock:
    """Goes on by a number of seconds each time it is looked at."""

    def __init__(self, step_seconds: float) -> None:
        self.now, self.step = 0.0, step_seconds

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def test_a_host_is_told_all_that_it_needs_and_no_file(there: FakeHelper) -> None:
    got = Driver(HOST, PLAN, rollout="r").activate(CHAT_PLAN)
    assert (got.outcome, got.from_, got.to, got.ok) == ("kept", OLD, NEW, True)
    (job,) = there.jobs
    spec = job["spec"]
    assert (job["kind"], spec["instance"]["generation"]) == ("activate", NEW)
    assert (spec["drained"], spec["confirm"], spec["rollout"]) == (False, True, "r")
    assert [one["name"] for one in spec["instances"]] == ["chat", "long"]
    assert [one["path"] for one in spec["shards"]] == list(CHAT_PLAN.shards)
    assert "unit_text" not in spec["instance"]
    assert there.asked[1] == ["start", "activate-chat"]


def test_what_passed_its_gate_is_confirmed_by_its_generation(there: FakeHelper) -> None:
    there.answers["poll"] = [news("gate"), news("confirm", NEW), ended(report("a"))]
    Driver(HOST, PLAN).activate(CHAT_PLAN)
    assert there.commands() == ["history", "start", "poll", "poll", "confirm", "poll"]
    assert there.asked[4] == ["confirm", "chat", NEW]


def test_a_confirmation_that_is_lost_is_sent_again(there: FakeHelper) -> None:
    there.answers["poll"] = [news("confirm", NEW), news("confirm", NEW), ended(report("a"))]
    there.answers["confirm"] = [CUT, {"confirmed": True}]
    assert Driver(HOST, PLAN).activate(CHAT_PLAN).ok
    assert there.commands().count("confirm") == 2


def test_a_confirmation_that_comes_too_late_leaves_the_word_to_the_report(
    there: FakeHelper,
) -> None:
    there.answers["poll"] = [news("confirm", NEW), ended(report("a", "reverted"), "late")]
    there.answers["confirm"] = [CorralError("a", "waits for no confirmation", "look")]
    assert Driver(HOST, PLAN).activate(CHAT_PLAN).outcome == "reverted"


@pytest.mark.parametrize(
    "answer",
    [
        report("a", host="b"), report("a", instance="long"), report("a", instance="../up"),
        report("a", outcome="fine"), {**report("a"), "phases": 7},
    ],
)  # fmt: skip
def test_a_report_of_another_kind_or_about_another_host_is_one_message(
    there: FakeHelper, answer: dict[str, Any]
) -> None:
    """A rollout would count it for the instance that it names."""
    there.answers["poll"] = [ended(answer)]
    with pytest.raises(CorralError, match=r"^a(/chat)?: .*\n  Next: "):
        Driver(HOST, PLAN).activate(CHAT_PLAN)


def test_another_hosts_report_in_the_history_is_not_taken_for_the_new_one(
    there: FakeHelper,
) -> None:
    there.answers["poll"] = [{**ended(None, NO_RESULT), "unsettled": True}]
    there.answers["history"] = [[], [report("a", host="b")], [report("a")]]
    assert Driver(HOST, PLAN).activate(CHAT_PLAN).name == "a/chat"


def test_a_link_that_is_cut_is_ridden_out(there: FakeHelper) -> None:
    received: list[Progress] = []
    there.answers["poll"] = [news("gate"), CUT, CUT, ended(report("a"))]
    driver = Driver(HOST, PLAN, on_progress=lambda _, one: received.append(one))
    assert driver.activate(CHAT_PLAN).ok
    assert [bool(one.silent_seconds) for one in received] == [False, True, True]


def test_a_host_that_stays_silent_is_told_of_with_what_it_will_do(
    there: FakeHelper, monkeypatch: pytest.MonkeyPatch
) -> None:
    there.answers["poll"] = [CUT]
    clock = Clock(100)
    monkeypatch.setattr("time.monotonic", clock)
    with pytest.raises(CorralError, match="continues by itself") as caught:
        Driver(HOST, PLAN).activate(CHAT_PLAN)
    assert "without confirmation within 120 s" in caught.value.what
    assert clock.now >= CHAT_PLAN.activation.longest_seconds


def test_patience_begins_anew_with_each_answer(
    there: FakeHelper, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts = [one for _ in range(5) for one in (CUT, news("gate"))]
    there.answers["poll"] = [*cuts, ended(report("a"))]
    monkeypatch.setattr("time.monotonic", Clock(CHAT_PLAN.activation.longest_seconds / 4))
    assert Driver(HOST, PLAN).activate(CHAT_PLAN).ok


def test_a_helper_that_fails_is_not_waited_for_that_long(
    there: FakeHelper, monkeypatch: pytest.MonkeyPatch
) -> None:
    there.answers["poll"] = [CorralError("a", "no bus", "wait"), ended(report("a"))]
    assert Driver(HOST, PLAN).activate(CHAT_PLAN).ok
    there.answers["poll"] = [CorralError("a", "no bus", "wait")]
    clock = Clock(10)
    monkeypatch.setattr("time.monotonic", clock)
    with pytest.raises(CorralError, match="no bus"):
        Driver(HOST, PLAN).activate(CHAT_PLAN)
    assert clock.now < 200


def test_after_a_reboot_the_report_is_that_of_who_settled(there: FakeHelper) -> None:
    before = report("a", at="2025-12-31T00:00:00Z")
    settled = report("a", "reverted")
    other = {**report("a"), "instance": "long", "at": "2026-02-01T00:00:00Z"}
    there.answers["poll"] = [{**ended(None, NO_RESULT), "unsettled": True}]
    there.answers["history"] = [[before], [other, before], CUT, [other, settled, before]]
    assert Driver(HOST, PLAN).activate(CHAT_PLAN) == Report.model_validate(settled)


OURS = {"joined": False, "run": "ours"}


def test_the_report_of_somebody_else_is_not_taken_for_ours(there: FakeHelper) -> None:
    ours = report("a", "reverted", run="ours", at="2026-01-01T00:00:00Z")
    theirs = report("a", "refused", run="theirs", at="2026-01-02T00:00:00Z")
    there.answers["start"] = [OURS]
    there.answers["poll"] = [{**ended(None, NO_RESULT), "run": "ours", "unsettled": True}]
    there.answers["history"] = [[], [theirs], [theirs, ours]]
    assert Driver(HOST, PLAN).activate(CHAT_PLAN) == Report.model_validate(ours)


def test_a_revert_that_was_refused_meanwhile_changes_nothing_about_ours(there: FakeHelper) -> None:
    theirs = report("a", "refused", run="theirs")
    there.answers["start"] = [OURS]
    there.answers["poll"] = [{**ended(None, NO_RESULT), "run": "ours"}]
    there.answers["history"] = [[], [theirs]]
    there.answers["state"] = [host_state(active="active", installed=OLD)]
    got = Driver(HOST, PLAN).activate(CHAT_PLAN)
    assert (got.run, got.outcome, got.reason) == (
        "ours",
        "refused",
        f"nothing was touched: {NO_RESULT}",
    )


def test_the_next_job_of_that_name_is_not_ours(there: FakeHelper) -> None:
    ours = report("a", "reverted", run="ours")
    there.answers["start"] = [OURS]
    theirs = {**news("confirm", NEW), "run": "theirs", "unsettled_run": "ours"}
    over = {**ended(report("a", run="theirs")), "run": "theirs"}
    there.answers["poll"] = [{**news("gate"), "run": "ours"}, theirs, over]
    there.answers["history"] = [[], [], [ours]]
    assert Driver(HOST, PLAN).activate(CHAT_PLAN) == Report.model_validate(ours)
    assert "confirm" not in there.commands()
    there.answers["poll"] = [over]
    there.answers["history"] = [[]]
    there.answers["state"] = [host_state(active="active", installed=OLD)]
    got = Driver(HOST, PLAN).activate(CHAT_PLAN)
    assert got.outcome == "refused"
    assert got.reason.startswith("nothing was touched: it ended, and another one began")


def test_one_that_ended_before_it_began_anything_is_told_at_once(there: FakeHelper) -> None:
    before = report("a", at="2025-12-31T00:00:00Z")
    there.answers["poll"] = [ended(None, NO_RESULT)]
    there.answers["history"] = [[before], CUT, [before]]
    there.answers["state"] = [host_state(active="active", installed=OLD)]
    got = Driver(HOST, PLAN, rollout="r").activate(CHAT_PLAN)
    told = (got.outcome, got.from_, got.to, got.serving, got.rollout)
    assert told == ("refused", OLD, NEW, OLD, "r")
    assert got.reason == f"nothing was touched: {NO_RESULT}"
    there.answers["state"] = [host_state(active="failed", installed=OLD)]
    there.answers["history"] = [[before]]
    assert Driver(HOST, PLAN).revert(CHAT_PLAN, "z").model_dump(include={"to", "serving"}) == {
        "to": "z", "serving": None,
    }  # fmt: skip


def test_a_job_that_failed_without_a_report_is_an_error(there: FakeHelper) -> None:
    there.answers["poll"] = [ended(None, "No space left. Next: free space there")]
    with pytest.raises(CorralError, match="a/chat: No space left") as caught:
        Driver(HOST, PLAN).activate(CHAT_PLAN)
    assert caught.value.next_step == "free space there"


def test_a_revert_names_the_instance_and_where_to(there: FakeHelper) -> None:
    Driver(HOST, PLAN, rollout="r").revert(CHAT_PLAN, OLD)
    (job,) = there.jobs
    assert job["kind"] == "revert"
    assert (job["spec"]["instance"], job["spec"]["to"]) == ("chat", OLD)
    assert there.asked[1] == ["start", "activate-chat"]


class Gateway:
    """Notes who is sent away and who comes back."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.moves = True
        self.misses: list[str | None] = []

    @contextmanager
    def drained(self, server: str, _: InstancePlan) -> Iterator[bool]:
        self.log.append(f"away {server}")
        try:
            yield True
        finally:
            self.log.append(f"back {server}")

    def expect(self, server: str, place: Place) -> bool:
        self.log.append(f"expect {server} on {place.port} as {place.alias}")
        return self.moves

    def missing(self, server: str, place: Place) -> str | None:
        self.log.append(f"looked for {server} on {place.port}")
        return self.misses.pop(0) if self.misses else None

    def keep(self, server: str, place: Place | None) -> None:
        self.log.append(f"keep {server} on {place.port if place else 'its old port'}")

    def can_drain(self, server: str, _: InstancePlan) -> bool:
        self.log.append(f"asked of {server}")
        return True


@pytest.mark.parametrize("answer", [ended(report("a")), ended(None, "no space")])
def test_a_gateway_sends_nothing_meanwhile_and_always_again_afterwards(
    there: FakeHelper, answer: dict[str, Any]
) -> None:
    gateway = Gateway()
    there.answers["poll"] = [answer]
    try:
        Driver(HOST, PLAN, gateway).activate(CHAT_PLAN)
    except CorralError as error:
        assert error.what == "no space"  # noqa: PT017 - one of the two cases
    kept = ["keep a/chat on 8001"] if answer["answer"] else []
    assert gateway.log == [
        "away a/chat", "expect a/chat on 8001 as small", *kept, "back a/chat",
    ]  # fmt: skip
    assert there.jobs[0]["spec"]["drained"] is True


def test_a_host_decides_beforehand_with_what_the_activation_will_be_given(
    there: FakeHelper,
) -> None:
    gateway = Gateway()
    there.answers["foresee"] = [{"how": "in place", "obstacles": []}]
    there.answers["poll"] = [ended(report("a"))]
    driver = Driver(HOST, PLAN, gateway)
    found, drained = driver.forecast(CHAT_PLAN)
    assert (found.how, drained) == ("in place", True)
    assert gateway.log == ["asked of a/chat"]
    foreseen = there.texts[-1]
    driver.activate(CHAT_PLAN)
    assert there.jobs[0]["spec"] == foreseen


def test_a_gateway_is_asked_no_more_where_nothing_moved(there: FakeHelper) -> None:
    gateway = Gateway()
    gateway.moves = False
    there.answers["poll"] = [ended(report("a"))]
    Driver(HOST, PLAN, gateway).activate(CHAT_PLAN)
    assert gateway.log == ["away a/chat", "expect a/chat on 8001 as small", "back a/chat"]


def test_what_moves_is_confirmed_once_its_gateways_find_it(there: FakeHelper) -> None:
    gateway, received = Gateway(), list[Progress]()
    gateway.misses = ["gw does not reach it at b:2 yet (L4CON)"]
    waits = news("confirm", NEW)
    there.answers["poll"] = [waits, waits, ended(report("a"))]
    driver = Driver(HOST, PLAN, gateway, on_progress=lambda _, one: received.append(one))
    assert driver.activate(CHAT_PLAN).reason == ""
    assert there.commands() == ["history", "start", "poll", "poll", "confirm", "poll"]
    assert gateway.log.count("looked for a/chat on 8001") == 2
    assert received[1].detail == "gw does not reach it at b:2 yet (L4CON)"


def test_what_its_gateways_never_find_is_taken_back_and_that_is_told(there: FakeHelper) -> None:
    gateway = Gateway()
    gateway.misses = ["gw does not reach it at b:2 yet (L4CON)"] * 2
    waits, late = news("confirm", NEW), report("a", "reverted", reason="not confirmed in time")
    there.answers["poll"] = [waits, waits, ended(late, "not confirmed in time")]
    got = Driver(HOST, PLAN, gateway).activate(CHAT_PLAN)
    assert "confirm" not in there.commands()
    assert got.reason.splitlines() == [
        "gw does not reach it at b:2 yet (L4CON)", "not confirmed in time",
    ]  # fmt: skip


def test_what_stays_is_confirmed_without_a_word_of_its_gateways(there: FakeHelper) -> None:
    gateway = Gateway()
    gateway.moves, gateway.misses = False, ["never asked"]
    there.answers["poll"] = [news("confirm", NEW), ended(report("a"))]
    Driver(HOST, PLAN, gateway).activate(CHAT_PLAN)
    assert "confirm" in there.commands()
    assert gateway.misses


def test_a_log_has_each_phase_once_and_silence_as_such() -> None:
    said: list[str] = []
    on_progress = ProgressLines(said.append)
    for one in (
        Progress(phase="gate", line="chat: gate"),
        Progress(phase="gate", line="gate of chat: golden"),
        Progress(phase="confirm", detail="g1", line="chat: confirm (g1)"),
        Progress(detail="cut", silent_seconds=12),
    ):
        on_progress("chat", one)
    assert said == [
        "chat: gate",
        "chat: confirm: g1",
        "chat: no answer for 12 s; the host continues (cut)",
    ]


def test_a_report_says_how_it_ended_and_shows_the_log_once() -> None:
    failed = Report.model_validate(report("a", "reverted", log="line 1\nline 2"))
    assert format_report(failed) == [
        f"chat: {NEW} reverted (in place, 1.0 s without a server)", "it is no good", "more",
        "Its last lines:", "line 1", "line 2",
    ]  # fmt: skip
    twice = failed.model_copy(update={"reason": "died. Its last lines:\nline 1\nline 2"})
    assert format_report(twice)[1:] == ["died. Its last lines:", "line 1", "line 2"]


def test_a_report_of_a_later_helper_is_read_as_well() -> None:
    assert Report.model_validate({**report("a"), "new": 1}).document()["from"] == OLD
