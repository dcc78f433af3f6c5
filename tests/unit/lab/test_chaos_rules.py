"""The hard day's rule: what a host serves, what lies about, what was said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lab.chaos import rules, scenarios
from lab.chaos.fleet import UNIT
from lab.chaos.operators import By, Done
from lab.chaos.play import outcome
from lab.chaos.rules import Found, Generation

OLD = Generation("aaaa", ("llama-server", "--model", "old"), "hello")
NEW = Generation("bbbb", ("llama-server", "--model", "new"), "hallo")
IN_ORDER: dict[str, Any] = {
    "generation": "aaaa",
    "argv": list(OLD.argv),
    "units": [UNIT],
    "files": [UNIT],
    "tables": [],
    "unfinished": False,
    "servers": 1,
    "report": {"serving": "aaaa"},
}


class Host:
    """A fleet whose hosts all look the same."""

    def __init__(self, **changes: Any) -> None:
        self.seen = {**IN_ORDER, **changes}

    def try_on(self, _n: int, _script: str) -> str:
        return json.dumps(self.seen)


def looked(monkeypatch: pytest.MonkeyPatch, reply: str = "hello", **changes: Any) -> Found:
    monkeypatch.setattr(rules, "ask", lambda _fleet, _n: reply)
    host: Any = Host(**changes)
    return rules.look(host, 1, {"old": OLD, "new": NEW})


def test_a_host_in_order_serves_its_old_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looked(monkeypatch) == Found("old", ())


def test_units_of_the_monitoring_are_no_leftovers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looked(monkeypatch, files=[UNIT, "corral_metrics.timer"]) == Found("old", ())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"reply": "hallo"}, "answers 'hallo', not 'hello'"),
        ({"argv": list(NEW.argv)}, "its process is llama-server --model new"),
        ({"argv": []}, "its process is not there"),
        ({"units": [UNIT, "corral-tiny-spare.service"]}, "unit corral-tiny-spare.service is left"),
        ({"files": [UNIT, "corral-guard-tiny.timer"]}, "file corral-guard-tiny.timer is left"),
        ({"tables": ["table ip corral_tiny"]}, "table ip corral_tiny is left"),
        ({"unfinished": True}, "activating.json is left"),
        ({"servers": 2}, "2 llama-server run"),
        ({"report": {"serving": "bbbb"}}, "its report says that bbbb serves"),
        ({"report": None}, "it has no history"),
    ],
)
def test_what_is_not_in_order_is_told(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], words: str
) -> None:
    found = looked(monkeypatch, **changes)
    assert found.serves == "old"
    assert words in " ".join(found.wrong)


def test_a_third_generation_is_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looked(monkeypatch, generation="cccc").serves is None


@pytest.mark.parametrize(
    ("by", "code", "serving", "good"),
    [
        ("rollout", 0, ("new", "new"), True),
        ("rollout", 10, ("old", "old"), True),
        ("rollout", 20, ("old", "new"), True),
        ("rollout", 20, ("new", None), True),
        ("rollout", 0, ("old", "old"), False),
        ("rollout", 0, ("old", "new"), False),
        ("rollout", 10, ("new", "new"), False),
        ("deploy", 1, ("old", "old"), True),
        ("deploy", 0, ("old", "old"), False),
        ("rollout", None, ("old", "new"), True),
    ],
)
def test_an_exit_code_says_what_is_served(
    by: By, code: int | None, serving: tuple[str | None, ...], good: bool
) -> None:
    found = [Found(one, ()) for one in serving]
    assert (rules.of_exit(Done(code, "", 1.0), found, by) == []) is good


def test_an_outcome_is_a_word() -> None:
    assert outcome({1: Found("new", ()), 2: Found("new", ())}) == "new serves"
    assert outcome({1: Found("old", ()), 2: Found("new", ())}) == "mixed"


@pytest.mark.parametrize("has_gateway", [True, False])
def test_scenarios_have_names_of_their_own(has_gateway: bool) -> None:
    scenes = scenarios.all_scenarios(has_gateway=has_gateway)
    chores = scenarios.all_chores(has_gateway=has_gateway, servers=scenarios.MEMBERS)
    assert bool(chores) is has_gateway
    names = [*(one.name for one in scenes), *(one.name for one in chores)]
    assert sorted(set(names)) == sorted(names)
