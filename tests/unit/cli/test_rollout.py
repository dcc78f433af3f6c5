"""`corral rollout`, `revert`, `history`, `show`, `pin`: the words that a person types."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from corral.cli import cli
from corral.cli import history as history_module
from corral.cli import revert as revert_module
from corral.cli import rollout as rollout_module
from corral.cli.reach import Target
from corral.errors import CorralError
from corral.host.activation_report import Report
from corral.host.answers import ObservedInstance
from corral.host.state import HostState
from corral.inventory.hosts import Inventory
from corral.planning.fleet import fleet_of
from corral.remote.client import HelperClient
from corral.rollout import activation
from corral.rollout.begin import Fleet
from corral.rollout.journal import Journals, Rollout
from corral.rollout.staging import Member
from tests.unit.rollout_samples import (
    OLD,
    FakeHelper,
    found_instance,
    generation,
    pair,
    report,
    rollout,
)


def corral(*words: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(cli, list(words), input=answer)


def refusal(result: Result) -> CorralError:
    assert isinstance(result.exception, CorralError), result.output
    return result.exception


def target(*names: str) -> Target:
    """The first of the hosts of an inventory."""
    hosts = tuple(pair(name)[0] for name in names)
    return Target(hosts[0], ("chat",), Inventory(path=Path("i.py"), hosts=hosts))


class Begin:
    """`corral rollout` on hosts that are staged already; notes what is run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.folder, self.ran, self.exit_code = folder, list[Rollout](), 10
        self.planned = rollout("a", "b")
        found = Fleet(fleet_of([]), tuple(pair(name) for name in ("a", "b")))
        staged = [Member(*pair("a"), HostState())]
        monkeypatch.setattr(rollout_module, "fleet", lambda *_: found)
        monkeypatch.setattr(rollout_module, "stage", lambda *_: staged)
        monkeypatch.setattr(rollout_module, "plan", lambda *_: self.planned)
        monkeypatch.setattr(rollout_module, "run_course", self.run)
        self.log: list[str] = []
        for module in (rollout_module, revert_module):
            monkeypatch.setattr(module, "holding", self.holding)

    @contextmanager
    def holding(self, _: Fleet, rollout: str) -> Iterator[None]:
        self.log.append(f"held for {rollout}")
        try:
            yield
        finally:
            self.log.append("let go")

    def run(self, begun: Rollout, *_: object) -> Rollout:
        self.ran.append(begun)
        return begun.model_copy(update={"exit_code": self.exit_code})

    def __call__(self, *words: str, answer: str | None = None) -> Result:
        return corral("rollout", "i.py", "--state", str(self.folder), *words, answer=answer)


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Begin:
    return Begin(monkeypatch, tmp_path)


def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether there is one is asked of standard input, which the runner replaces."""
    monkeypatch.setattr(rollout_module, "_has_terminal", lambda: True)


def test_a_rollout_without_a_terminal_needs_a_word_for_it(begin: Begin) -> None:
    assert refusal(begin()).what == "there is no terminal to ask on"
    assert begin.ran == []
    assert begin("-y").exit_code == 10
    assert len(begin.ran) == 1


@pytest.mark.parametrize(("answer", "runs"), [("n\n", 0), ("y\n", 1), ("\n", 0)])
def test_the_plan_is_shown_and_asked_about(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, answer: str, runs: int
) -> None:
    terminal(monkeypatch)
    result = begin(answer=answer)
    assert len(begin.ran) == runs
    assert result.exit_code == (10 if runs else 1)
    for word in ("a/chat", OLD, generation("a"), "quant Q8_0 -> F16", "2 instances in 2 waves"):
        assert word in result.output
    assert "at most about 23 s" in result.output


def test_with_json_stdout_has_the_outcome_alone(begin: Begin) -> None:
    result = begin("-y", "--json")
    assert result.exit_code == 10
    outcome = Rollout.model_validate_json(result.stdout)
    assert (outcome.exit_code, outcome.steps) == (10, begin.planned.steps)
    assert "2 instances in 2 waves" in result.stderr


def test_hosts_are_held_from_before_they_are_staged_until_the_end(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stage(*words: Any) -> list[Member]:
        begin.log.append(f"staged for {words[-1]}")
        return [Member(*pair("a"), HostState())]

    terminal(monkeypatch)
    monkeypatch.setattr(rollout_module, "stage", stage)
    monkeypatch.setattr(rollout_module, "new_id", lambda: "r7")
    for answer in ("y\n", "n\n"):
        begin(answer=answer)
        assert begin.log == ["held for r7", "staged for r7", "let go"]
        begin.log.clear()


def test_nothing_to_do_is_verified_and_ends_well(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin.planned = rollout("a").model_copy(update={"steps": (), "waves": ()})
    problems: list[str] = []
    monkeypatch.setattr("corral.rollout.health.Health.problems", lambda *_, **__: problems)
    result = begin("-y")
    assert (result.exit_code, begin.ran) == (0, [])
    assert "nothing to do: 1 instance verified" in result.output
    outcome = Rollout.model_validate_json(begin("-y", "--json").stdout)
    assert (outcome.exit_code, outcome.steps) == (0, ())
    problems.append("a/chat: health: 503")
    assert refusal(begin("-y")).what == "a/chat: health: 503"


def test_a_killed_rollout_is_resumed_as_it_was(begin: Begin) -> None:
    assert "no rollout of it is known" in refusal(begin("-y", "--resume")).what
    inventory = str(Path("i.py").resolve())
    Journals(begin.folder).save(rollout("a", inventory=inventory, begun=("a/chat",)))
    begin("-y", "--resume")
    assert begin.ran[0].begun == ("a/chat",)


def test_a_converged_rollout_removes_what_nothing_uses_any_more(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = CorralError("b", "not reached", "wait")
    hosts = FakeHelper({"prune": [["/opt/corral/engines/e/old"], []]})
    monkeypatch.setattr(HelperClient, "ask", hosts.ask)
    assert begin("-y").exit_code == 10
    assert hosts.asked == []
    begin.exit_code = 0
    begin.planned = rollout("a")
    assert "a: removed, as nothing uses it: /opt/corral/engines/e/old" in begin("-y").output
    assert "removed" not in begin("-y").output
    hosts.answers["prune"] = [cut]
    result = begin("-y")
    assert result.exit_code == 0
    assert "a: not reached; the next deploy removes what is unused" in result.output
    assert hosts.commands() == ["prune"] * 3


@pytest.mark.parametrize("word", ["--dry", "--no-wait", "--serial"])
def test_words_of_pyinfra_that_would_hide_something_are_refused(begin: Begin, word: str) -> None:
    result = begin("-y", word)
    assert result.exit_code == 2
    assert "No such option" in result.output


@pytest.fixture
def helper(monkeypatch: pytest.MonkeyPatch) -> FakeHelper:
    failed = report(
        "a", "reverted", log="no such model", at="2026-01-02T00:00:00Z", revert_gate=[],
        gate=[{"part": "golden", "ok": False, "figure": "0 of 1", "limit": "1 of 1 replies",
               "detail": "said x"}],
    )  # fmt: skip
    plans = {"plan": {"quant": "F16", "argv": []}}
    made = FakeHelper(
        {
            "history": [[failed, report("a")]],
            "generation": [plans, {"plan": {"quant": "Q8_0", "argv": []}}],
            "pin": [{"pinned": "g", "name": "good"}],
            "unpin": [{"unpinned": "g", "name": "good"}],
        }
    )
    for module in (history_module, revert_module):
        monkeypatch.setattr(module, "reach", lambda *_: [target("a")])
    monkeypatch.setattr(history_module, "reach_one", lambda *_: target("a"))
    monkeypatch.setattr(revert_module, "stored_plans", lambda *_, **__: pair("a")[1])
    monkeypatch.setattr(HelperClient, "ask", made.ask)
    return made


@pytest.mark.usefixtures("helper")
def test_history_lists_the_newest_first() -> None:
    result = corral("history", "a")
    assert result.exit_code == 0
    lines = result.output.splitlines()[1:]
    assert "reverted" in lines[0]
    assert "kept" in lines[-1]
    assert [one["outcome"] for one in json.loads(corral("history", "a", "--json").output)] == [
        "reverted",
        "kept",
    ]


def test_history_of_a_host_that_is_not_reached_fails(helper: FakeHelper) -> None:
    helper.answers["history"] = [CorralError("a", "not reached", "wait")]
    result = corral("history", "a")
    assert result.exit_code == 1
    assert "not reached" in result.output


@pytest.mark.usefixtures("helper")
@pytest.mark.parametrize("words", [("a/chat",), (generation("a")[:6], "-i", "i.py")])
def test_show_tells_gate_differences_and_the_log_when_asked(words: tuple[str, ...]) -> None:
    result = corral("show", *words)
    assert result.exit_code == 0, result.output
    for word in ("reverted", "0 of 1", "FAILED", "quant F16 -> Q8_0", "gate 2.5 s"):
        assert word in result.output
    assert "no such model" not in result.output
    assert "no such model" in corral("show", *words, "--log").output


@pytest.mark.usefixtures("helper")
def test_an_unknown_generation_is_told() -> None:
    assert "has no known activation" in refusal(corral("show", "ffff", "-i", "i.py")).what
    # Where it is looked for is said: other inventories may not even be locked.
    assert refusal(corral("show", "ffff")).next_step.startswith("add -i INVENTORY")


def test_a_generation_is_pinned_by_name(helper: FakeHelper) -> None:
    assert corral("pin", "a/chat", "g", "good").exit_code == 0
    document = helper.texts[-1]
    assert (document["instance"], document["generation"], document["name"]) == ("chat", "g", "good")
    assert "g is no longer kept" in corral("unpin", "a/chat", "good").output


def reverts(outcome: str) -> Callable[..., Any]:
    def revert(_: object, __: object, to: str | None) -> Any:
        return Report.model_validate(report("a", outcome, to=to))

    return revert


@pytest.mark.usefixtures("helper")
@pytest.mark.parametrize(("outcome", "code"), [("kept", 0), ("refused", 20)])
def test_revert_says_whether_the_host_is_back(
    monkeypatch: pytest.MonkeyPatch, outcome: str, code: int
) -> None:
    monkeypatch.setattr(activation.Driver, "revert", reverts(outcome))
    result = corral("revert", "a/chat", "--to", "g1")
    assert result.exit_code == code
    assert f"a/chat: g1 {outcome}" in result.output
    result = corral("revert", "a/chat", "--to", "g1", "--json")
    assert result.exit_code == code
    assert [one["outcome"] for one in json.loads(result.stdout)] == [outcome]
    assert f"a/chat: g1 {outcome}" in result.stderr


@pytest.mark.parametrize("words", [(), ("a", "--rollout", "r"), ("--rollout", "r", "--to", "g")])
def test_revert_wants_names_or_a_rollout(words: tuple[str, ...]) -> None:
    assert "either names or --rollout" in refusal(corral("revert", *words)).what


def test_a_rollout_is_taken_back_but_for_what_changed_again(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = rollout("a", "b", reports=(report("a"), report("b")), exit_code=0)
    Journals(begin.folder).save(done)
    left: list[frozenset[str]] = []

    def run(begun: Rollout, *rest: Any) -> Rollout:
        left.append(rest[-1])
        return begin.run(begun)

    def found_on(one: Target) -> dict[str, ObservedInstance]:
        serves = {"a": generation("a"), "b": "another"}[one.host.name]
        return {"chat": found_instance(installed_generation=serves)}

    monkeypatch.setattr(revert_module, "read_inventory", lambda _: target("a", "b").inventory)
    monkeypatch.setattr(revert_module, "observed_on", found_on)
    monkeypatch.setattr(revert_module, "run_course", run)
    result = corral("revert", "--rollout", "r", "--state", str(begin.folder))
    assert result.exit_code == 0, result.output
    assert left == [frozenset({"b/chat"})]
    assert "b/chat has changed since that rollout" in result.output
    assert begin.ran[0].failure.startswith("reverted by")
    result = corral("revert", "--rollout", "r", "--state", str(begin.folder), "--json")
    assert Rollout.model_validate_json(result.stdout).id == "r"


def test_a_rollout_over_a_host_that_the_inventory_lost_says_what_is_needed(
    begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    Journals(begin.folder).save(rollout("a", "b", reports=(report("a"), report("b")), exit_code=0))
    monkeypatch.setattr(revert_module, "read_inventory", lambda _: target("a").inventory)
    error = refusal(corral("revert", "--rollout", "r", "--state", str(begin.folder)))
    assert (error.where, error.what) == ("b", "is no longer in i.py")
    assert begin.ran == []


def test_a_rollout_that_changed_nothing_has_nothing_to_take_back(tmp_path: Path) -> None:
    Journals(tmp_path).save(rollout("a", exit_code=10))
    result = corral("revert", "--rollout", "r", "--state", str(tmp_path))
    assert result.exit_code == 0
    assert "nothing to revert" in result.output
    result = corral("revert", "--rollout", "r", "--state", str(tmp_path), "--json")
    assert Rollout.model_validate_json(result.stdout).exit_code == 10
    assert result.exit_code == 0
