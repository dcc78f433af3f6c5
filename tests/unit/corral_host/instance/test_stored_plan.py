"""A revert is proved by the gate that its generation passed last."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.corral_host.activation.test_switch import whole
from tests.unit.helper_modules import helper_module
from tests.unit.switch_host import MODULES, UNIT, Host, HostError, choose, played

__all__ = ["played"]
activate, revert_generation = MODULES["activate"].activate, MODULES["revert"].revert_generation
staging, stored_plan = helper_module("activation.staging"), helper_module("instance.stored_plan")
commands = helper_module("system.commands")
WRONG, RIGHT = [{"exact": "QX"}], [{"exact": "QY"}]


@pytest.fixture
def host(played: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    """Every server answers QY, so a gate that expects QX fails."""
    choose(monkeypatch, "in place")

    def gate(instance: dict[str, Any], *_: object) -> list[dict[str, Any]]:
        if instance["gate"]["golden"] == WRONG:
            raise HostError("golden failed")
        return played.gate(instance)

    for module in MODULES.values():
        if hasattr(module, "gate"):
            monkeypatch.setattr(module, "gate", gate)
    return played


def planned(host: Host, generation: str, golden: list[dict[str, str]]) -> dict[str, Any]:
    plan = host.plan(generation)
    return {**plan, "gate": {**plan["gate"], "golden": golden}}


def stage(host: Host, generation: str, golden: list[dict[str, str]]) -> None:
    """Stage a generation like a deploy, if it is missing."""
    text = f"[Unit]\nX-Corral-Generation={generation}\n"
    plan = planned(host, generation, golden)
    staging.stage({**plan, "unit_text": text, "chat_template": None})


def switched(host: Host, generation: str, golden: list[dict[str, str]]) -> str:
    """Outcome of an activation under this gate."""
    plan = planned(host, generation, golden)
    return outcome(activate, host.spec(generation, instance=plan, instances=[plan]))


def back(host: Host, to: str | None = None) -> str:
    """Outcome of the operator's revert."""
    return outcome(revert_generation, {**host.spec("b"), "instance": "chat", "to": to})


def outcome(switch: Any, spec: dict[str, Any]) -> str:
    try:
        return str(switch(spec, "anna")["outcome"])
    except HostError as fault:
        return str(fault.answer["outcome"])


def kept_golden(host: Host, generation: str) -> object:
    path = host.folder / "generations" / generation / "plan.json"
    return json.loads(path.read_text())["gate"]["golden"]


def test_a_golden_that_was_corrected_is_the_one_of_a_later_revert(host: Host) -> None:
    stage(host, "b", WRONG)
    assert switched(host, "b", WRONG) == "reverted"
    assert switched(host, "b", RIGHT) == "kept"
    assert back(host) == "kept"
    assert whole(host) == "a"
    assert back(host) == "kept"
    assert whole(host) == "b"
    assert kept_golden(host, "b") == RIGHT


def test_what_failed_a_gate_goes_back_to_itself_under_the_one_that_it_passed(host: Host) -> None:
    assert switched(host, "b", RIGHT) == "kept"
    stage(host, "b", WRONG)
    assert switched(host, "b", WRONG) == "reverted"
    assert whole(host) == "b"
    assert kept_golden(host, "b") == RIGHT


@pytest.mark.parametrize("of_before", ["this version", "an earlier version"])
def test_staged_again_under_another_gate_it_is_proved_by_the_old_one(
    of_before: str, host: Host
) -> None:
    """``a`` was kept before plans said so: its link says it."""
    if of_before == "this version":
        assert switched(host, "a", RIGHT) == "kept"
    stage(host, "a", WRONG)
    host.bad = ("=b",)
    assert switched(host, "b", RIGHT) == "reverted"
    assert whole(host) == "a"


def test_while_nothing_is_decided_no_plan_is_replaced(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    stage(host, "b", WRONG)
    monkeypatch.setattr(MODULES["journal"], "as_kept", full)
    assert switched(host, "b", RIGHT) == "reverted"
    assert whole(host) == "a"
    assert kept_golden(host, "b") == WRONG


def test_what_was_never_kept_is_staged_again_under_another_gate(host: Host) -> None:
    stage(host, "b", WRONG)
    assert stored_plan.is_staged(planned(host, "b", WRONG))
    assert not stored_plan.is_staged(planned(host, "b", RIGHT))
    stage(host, "b", RIGHT)
    assert stored_plan.is_staged(planned(host, "b", RIGHT))


def test_what_was_kept_stays_as_it_is_under_another_gate(host: Host) -> None:
    assert switched(host, "b", RIGHT) == "kept"
    assert stored_plan.is_staged(planned(host, "b", WRONG))


def waits(host: Host) -> str | None:
    """The generation that waits for its activation."""
    found: str | None = commands.linked(host.folder, "staged")
    return found


def test_what_is_staged_waits_until_an_activation_ends(host: Host) -> None:
    stage(host, "b", WRONG)
    assert waits(host) == "b"
    assert switched(host, "b", WRONG) == "reverted"
    assert waits(host) is None
    assert not stored_plan.is_next(planned(host, "b", WRONG))
    assert stored_plan.is_next(planned(host, "a", RIGHT))


def test_what_served_before_waits_as_well_once_it_is_staged_again(host: Host) -> None:
    assert switched(host, "b", RIGHT) == "kept"
    assert back(host) == "kept"
    assert not stored_plan.is_next(planned(host, "b", RIGHT))
    stage(host, "b", RIGHT)
    assert waits(host) == "b"
    assert stored_plan.is_next(planned(host, "b", RIGHT))
    assert not stored_plan.is_next(planned(host, "a", RIGHT))
    assert switched(host, "b", RIGHT) == "kept"
    assert waits(host) is None


def test_nothing_waits_once_the_current_generation_is_planned_again(host: Host) -> None:
    stage(host, "b", RIGHT)
    stage(host, "a", RIGHT)
    assert waits(host) is None
    assert stored_plan.is_next(planned(host, "a", RIGHT))


def test_a_damaged_plan_is_none(host: Host) -> None:
    plan = planned(host, "a", [])
    assert stored_plan.is_staged(plan)
    Path(host.folder, "generations/a/plan.json").write_text("{")
    assert not stored_plan.is_staged(plan)
    stage(host, "a", RIGHT)
    assert kept_golden(host, "a") == RIGHT


def test_the_files_of_a_kept_plan_lie_beside_it(host: Host) -> None:
    stage(host, "b", WRONG)
    path = host.folder / "generations/b/plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "reference_text": "of the old"}))
    assert switched(host, "b", RIGHT) == "kept"
    found = json.loads(path.read_text())
    assert "reference_text" not in found
    assert found["unit_text"].startswith("[Unit]")


def test_one_that_no_link_names_any_more_keeps_its_plan(host: Host) -> None:
    for generation in ("c", "d"):
        host.stage(generation)
        (host.folder / f"generations/{generation}/plan.json").unlink()
        stage(host, generation, RIGHT)
        assert switched(host, generation, RIGHT) == "kept"
    assert switched(host, "a", RIGHT) == "kept"
    stage(host, "c", WRONG)
    assert back(host, "c") == "kept"
    assert whole(host) == "c"


def test_a_gate_that_changed_alone_is_run_and_stored_without_a_restart(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, "without a restart")
    server, asked = host.running[UNIT], []

    def gate(instance: dict[str, Any], parts: tuple[str, ...]) -> list[dict[str, Any]]:
        asked.append(parts)
        if instance["gate"]["golden"] == WRONG:
            raise HostError("golden failed")
        return host.gate(instance)

    for name in ("as_it_runs", "rollback"):
        monkeypatch.setattr(MODULES[name], "gate", gate)
    assert stored_plan.changed_parts(planned(host, "a", [])) == []
    assert stored_plan.changed_parts(planned(host, "a", RIGHT)) == ["golden"]
    # A generation that was never kept has passed no gate.
    assert stored_plan.changed_parts(planned(host, "b", RIGHT)) == []
    assert switched(host, "a", WRONG) == "reverted"
    assert kept_golden(host, "a") == []
    assert switched(host, "a", RIGHT) == "kept"
    assert kept_golden(host, "a") == RIGHT
    assert stored_plan.changed_parts(planned(host, "a", RIGHT)) == []
    assert set(asked) == {MODULES["gate"].PROOF}
    longer = planned(host, "a", RIGHT)
    longer["gate"] |= {"soak_seconds": 9, "speed": {"runs": 3}}
    assert outcome(activate, host.spec("a", instance=longer, instances=[longer])) == "kept"
    assert asked[-1] == (*MODULES["gate"].PROOF, "speed", "soak")
    assert host.running[UNIT] is server
    assert whole(host) == "a"


def test_perplexity_that_changed_is_measured_beside_the_server(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(monkeypatch, "without a restart")
    row = {"part": "perplexity", "ok": True, "figure": "", "limit": "", "detail": ""}
    monkeypatch.setattr(MODULES["as_it_runs"], "before_start", lambda _: [row])
    plan = planned(host, "a", [])
    plan["gate"] |= {"perplexity": {"limit": 7, "text_path": "/t"}}
    report = activate(host.spec("a", instance=plan, instances=[plan]), "anna")
    assert [one["part"] for one in report["gate"]] == ["perplexity", "ready"]


def test_what_placed_the_installed_generation_is_told_while_another_is_planned(host: Host) -> None:
    """Its settings, weights and placement, so that a deploy can say what moves."""
    state = helper_module("instance.state")
    stage(host, "old", RIGHT)
    path = stored_plan.plan_path(host.plan("old")["folder"], "old")
    parts = {"settings": {"placement": "auto"}, "shards": ["a"], "placement": {"gpu_layers": 3}}
    path.write_text(json.dumps({**json.loads(path.read_text()), **parts}))
    unit = Path(host.plan("old")["unit_path"])
    unit.write_text("[Unit]\nX-Corral-Generation=old\n")
    assert state.replaced_plan(host.plan("new")) == parts
    assert state.replaced_plan(host.plan("old")) == {}
    path.write_text("{")
    assert state.replaced_plan(host.plan("new")) == {}
    unit.unlink()
    assert state.replaced_plan(host.plan("new")) == {}
