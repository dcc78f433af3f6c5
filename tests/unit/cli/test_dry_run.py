"""`corral diff`, and `--dry-run` of rollout and revert: what would change, and exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Never

import pytest
from click.testing import CliRunner, Result

from corral.cli import cli
from corral.cli import diff as diff_module
from corral.cli import revert as revert_module
from corral.cli import rollout as rollout_module
from corral.cli.reach import Target
from corral.cli.select import Inventories
from corral.errors import CorralError
from corral.inventory.hosts import Inventory
from corral.planning.fleet import FleetPlan, fleet_of
from corral.rollout import differences
from corral.rollout.begin import Fleet
from corral.rollout.differences import HostDiff, InstanceDiff
from tests.unit.rollout_samples import OLD, found_instance, generation, pair


def corral(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words))


def changing(host: str) -> HostDiff:
    one = InstanceDiff(
        instance="chat", from_generation=OLD, to_generation=generation(host),
        changes=("quant F16 -> Q8_0",), how="in place",
    )  # fmt: skip
    return HostDiff(host=host, instances=(one,))


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, HostDiff]:
    """Host -> what is found there. A rollout that stages or takes a lock fails its test."""
    known = {name: HostDiff(host=name) for name in ("a", "b")}
    pairs = [pair(name) for name in known]
    fleet = Fleet(fleet_of(pairs), tuple(pairs))
    monkeypatch.setattr(rollout_module, "fleet", lambda *_: fleet)
    for name in ("stage", "holding", "fleet_lock"):
        monkeypatch.setattr(rollout_module, name, None)
    monkeypatch.setattr(differences, "host_diff", lambda host, *_: known[host.name])
    read = Inventory(path=Path("i.py"), hosts=tuple(host for host, _ in pairs))
    for name in ("named", "inventories"):
        monkeypatch.setattr(diff_module, name, lambda *_: Inventories((read,)))
    monkeypatch.setattr(diff_module, "load_planner", lambda *_, **__: None)
    monkeypatch.setattr(diff_module, "plan_fleet", lambda *_, **__: fleet_of(pairs))
    monkeypatch.setattr(diff_module, "host_diff", lambda host, *_: known[host.name])
    return known


@pytest.mark.parametrize("words", [("rollout", "i.py", "--dry-run"), ("diff",), ("diff", "a")])
def test_no_change_is_0(found: dict[str, HostDiff], words: tuple[str, ...]) -> None:
    result = corral(*words)
    assert result.exit_code == 0, result.output
    assert f"no change: {', '.join(found) if words != ('diff', 'a') else 'a'}" in result.output


@pytest.mark.parametrize("words", [("rollout", "i.py", "--dry-run"), ("diff",)])
def test_some_changes_are_2_and_shown(found: dict[str, HostDiff], words: tuple[str, ...]) -> None:
    found["b"] = changing("b")
    result = corral(*words)
    assert result.exit_code == 2, result.output
    assert f"chat: {OLD} -> {generation('b')}, in place\n    quant F16 -> Q8_0" in result.output
    assert "no change: a" in result.output
    assert ("wave 1: b" in result.output) == (words[0] == "rollout")
    document = json.loads(corral(*words, "--json").output)
    assert document["version"] == 1
    assert [bool(host["instances"]) for host in document["hosts"]] == [False, True]


@pytest.mark.parametrize("words", [("rollout", "i.py", "--dry-run"), ("diff",)])
def test_a_silent_host_is_1(found: dict[str, HostDiff], words: tuple[str, ...]) -> None:
    found["a"], found["b"] = HostDiff(host="a", problem="no answer"), changing("b")
    result = corral(*words)
    assert result.exit_code == 1
    assert "a: not compared: no answer" in result.output


def test_a_host_without_a_plan_is_1_and_says_what_to_type(
    found: dict[str, HostDiff], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unplanned(host: str) -> Never:
        raise CorralError(host, "corral.lock has no entry for x", "run `corral lock i.py`")

    monkeypatch.setattr(FleetPlan, "plan", lambda _, host: unplanned(host))
    result = corral("diff", *found)
    assert result.exit_code == 1
    said = "corral.lock has no entry for x. Next: run `corral lock i.py`"
    assert result.output == "".join(f"{name}: not compared: {name}: {said}\n" for name in found)


def test_the_waves_of_a_forecast_are_those_of_the_hosts_that_change(
    found: dict[str, HostDiff],
) -> None:
    found |= {name: changing(name) for name in ("a", "b")}
    document = json.loads(corral("rollout", "i.py", "--dry-run", "--json", "--soak", "7").output)
    assert [wave["hosts"] for wave in document["waves"]] == [["a"], ["b"]]
    assert document["soak_seconds"] == 7


@pytest.mark.usefixtures("found")
def test_options_that_contradict_a_dry_run_are_refused() -> None:
    refused = corral("rollout", "i.py", "--dry-run", "--resume").exception
    assert isinstance(refused, CorralError)
    assert refused.where == "--dry-run --resume"


@pytest.fixture
def reverting(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """One host whose instance serves its plan; ``kept``: what it can be reverted to."""
    host, plan = pair("a")
    previous = plan.instances[0].model_copy(update={"generation": OLD, "quant": "F16"})
    answers: dict[str, Any] = {"kept": previous.model_dump(mode="json")}

    def stored(*_: object) -> dict[str, Any]:
        if isinstance(answers["kept"], CorralError):
            raise answers["kept"]
        kept: dict[str, Any] = answers["kept"]
        return kept

    target = Target(host, ("chat",), Inventory(path=Path("i.py"), hosts=(host,)))
    now = {"chat": found_instance(installed_generation=generation("a"))}
    monkeypatch.setattr(revert_module, "reach", lambda *_: [target])
    monkeypatch.setattr(revert_module, "stored_plans", lambda *_, **__: plan)
    monkeypatch.setattr(revert_module, "observed_on", lambda _: now)
    monkeypatch.setattr(revert_module, "Driver", None)
    monkeypatch.setattr(differences, "stored_plan", stored)
    return answers


@pytest.mark.usefixtures("reverting")
def test_a_revert_says_what_it_would_switch_to() -> None:
    result = corral("revert", "a/chat", "--dry-run")
    assert result.exit_code == 2, result.output
    assert result.output == f"a/chat: {generation('a')} -> {OLD}\n  quant Q8_0 -> F16\n"
    document = json.loads(corral("revert", "a", "--dry-run", "--json").output)
    assert document["instances"][0]["to_generation"] == OLD


def test_a_revert_to_what_serves_is_no_change(reverting: dict[str, Any]) -> None:
    reverting["kept"] = pair("a")[1].instances[0].model_dump(mode="json")
    assert corral("revert", "a/chat", "--dry-run").exit_code == 0


def test_a_revert_without_a_previous_generation_is_1(reverting: dict[str, Any]) -> None:
    reverting["kept"] = CorralError("a", "there is no previous generation", "deploy it")
    result = corral("revert", "a/chat", "--dry-run")
    assert result.exit_code == 1
    assert "cannot be reverted: there is no previous generation" in result.output
