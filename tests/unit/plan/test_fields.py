"""What the host helper reads of a plan: its fields, and the arguments of plans that lack them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from corral.engines import engine_module
from corral.engines.base import UnitNeeds
from corral.planning import limits
from corral.planning.stored_plans import stored_plan
from tests.samples import CHAT, GPU, SOCKET, host, planner
from tests.unit.helper_modules import helper_module

fields = helper_module("plans.fields")
watchdog = helper_module("activation.watchdog")
NEW = ("release_folder", "engine", "weights_mapped", "drafts_tokens", "environment")


def document(spec: dict[str, Any] = CHAT, data: dict[str, Any] | None = None, **chat: Any) -> Any:
    """The plan of an instance as its host keeps it."""
    (instance,) = planner(**chat).plan_host(host(spec, **(data or {}))).instances
    return instance.model_dump(mode="json")


def without(plan: dict[str, Any], *names: str) -> dict[str, Any]:
    """As a version kept it that did not have these fields."""
    return {name: value for name, value in plan.items() if name not in names}


def read(plan: dict[str, Any]) -> list[Any]:
    return [
        fields.release_folder(plan), fields.engine(plan), fields.weights_mapped(plan),
        fields.drafts_tokens(plan), fields.environment(plan),
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["mmap", "mmap+mlock", "mlock", "none", "direct"])
@pytest.mark.parametrize("spec", [CHAT, SOCKET])
@pytest.mark.parametrize("data", [{}, {"gpus": GPU}])
def test_an_older_plan_says_the_same_by_its_arguments_and_its_unit(
    tmp_path: Path, mode: str, spec: dict[str, Any], data: dict[str, Any]
) -> None:
    plan = document(spec, data, load_mode=mode) | {"folder": str(tmp_path)}
    staged = tmp_path / "generations" / plan["generation"] / "unit"
    staged.parent.mkdir(parents=True)
    staged.write_text(plan["unit_text"])
    assert read(without(plan, *NEW)) == read(plan)
    # What is read is the plan's: nobody parses arguments that could be read.
    assert read({**plan, "argv": ["/x"], "folder": "/absent"}) == read(plan)


def test_what_drafts_tokens_is_said() -> None:
    assert fields.drafts_tokens({"argv": ["s", "--spec-type", "draft-mtp"]})
    assert not fields.drafts_tokens({"argv": ["s"]})
    assert fields.drafts_tokens({"argv": ["s"], "drafts_tokens": True})


@pytest.mark.parametrize(
    ("argv", "mapped"),
    [
        (["--load-mode", "mmap"], True),
        (["--load-mode", "none"], False),
        (["--load-mode", "mmap+mlock"], False),
        (["--ctx-size", "1"], True),
        (["--no-mmap"], False),
        (["--mlock"], False),
    ],
)
def test_how_weights_are_loaded_is_read_from_the_command_line_of_an_older_plan(
    argv: list[str], mapped: bool
) -> None:
    assert fields.weights_mapped({"argv": argv}) is mapped


def test_host_and_controller_have_one_limit() -> None:
    plan = document()
    how = {"in place": "limit_seconds", "side by side": "side_by_side_limit_seconds"}
    for name, key in how.items():
        assert watchdog.limit_seconds(plan, name) == plan["activation"][key]
    (instance,) = planner().plan_host(host(CHAT)).instances
    assert instance.activation.longest_seconds == plan["activation"]["side_by_side_limit_seconds"]


def test_the_limit_is_longer_than_all_that_may_take_long() -> None:
    plain = document()
    ready = plain["ready_timeout_seconds"]
    switch = plain["activation"]
    least = 2 * ready + 2 * switch["drain_seconds"] + switch["confirm_seconds"]
    assert switch["limit_seconds"] > least
    slow = document(soak_seconds=100)["activation"]
    assert slow["limit_seconds"] - switch["limit_seconds"] == 2 * 100
    assert slow["side_by_side_limit_seconds"] - switch["side_by_side_limit_seconds"] == 3 * 100


@pytest.mark.parametrize("slow", ["llama.cpp", "ik_llama.cpp"])
def test_a_server_of_any_engine_has_its_time_to_stop(
    slow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What served before, and is stopped first, may be of another engine than what is planned."""
    before = document()
    needs = UnitNeeds(stop_seconds=60 + 300)
    monkeypatch.setattr(engine_module(slow), "unit_needs", needs)
    after = document()
    assert before["stop_seconds"] == 60
    assert after["stop_seconds"] == (360 if slow == after["kind"] else 60)
    for key, stops in (("limit_seconds", 2), ("side_by_side_limit_seconds", 3)):
        assert after["activation"][key] - before["activation"][key] == stops * 300
    assert before["activation"]["limit_seconds"] > 2 * (before["ready_timeout_seconds"] + 60)


def test_the_limit_of_a_kept_plan_counts_its_own_stop() -> None:
    def limit(**kept: Any) -> int:
        (found,) = stored_plan(host(CHAT), {"chat": kept}).instances
        return found.activation.limit_seconds

    assert limit() == limit(stop_seconds=60)
    assert limit(stop_seconds=90) - limit() == 2 * 30


def test_a_kept_plan_of_before_has_the_limit_that_it_would_have_now() -> None:
    plan = document()
    old = json.loads(json.dumps(plan))
    del old["activation"]["limit_seconds"], old["activation"]["side_by_side_limit_seconds"]
    (kept,) = stored_plan(host(CHAT), {"chat": old}).instances
    assert kept.activation.model_dump(mode="json", exclude={"spare"}) == {
        name: value for name, value in plan["activation"].items() if name != "spare"
    }
    # Its host arms what that version armed.
    assert watchdog.limit_seconds(old, "in place") > 0


def test_what_the_plan_allows_for_is_what_the_host_waits_for() -> None:
    """Said on both sides, which share no module; the host's own limit is of plans of before."""
    assert limits._READING_SECONDS == helper_module("checks.perplexity").READING_SECONDS
    assert limits._OBSTACLE_SECONDS == helper_module("activation.start_again").OBSTACLE_SECONDS
    plan = document(soak_seconds=9)
    for how in ("in place", "side by side"):
        assert watchdog.limit_seconds(plan, how) >= watchdog.limit_of_earlier(plan, how)
