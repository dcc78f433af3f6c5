"""What a deploy would change now, from a plan, a host's state and the store's keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from corral.cli.views.diff import diff_lines
from corral.errors import CorralError
from corral.host.answers import ObservedInstances
from corral.host.state import HostState, MonitoringState
from corral.plan.host import HostPlan
from corral.rollout import differences
from corral.rollout.differences import FleetDiff, HostDiff, compared, host_diff
from corral.store.api_keys import KeyFile, LostKeysError
from tests.samples import CHAT, GIB, LONG, bare, host, plan, settled

KEYS: dict[str, str | None] = {"chat": "a" * 64, "long": "b" * 64}
PLAN = plan(CHAT, LONG)
OLD = plan({**CHAT, "quant": "F16"}).instances[0]


def on(state: HostState, keys: dict[str, str | None] = KEYS, **kept: Any) -> HostDiff:
    return compared(PLAN, state, keys, kept)


def served() -> HostState:
    state = settled(PLAN, {name: str(digest) for name, digest in KEYS.items()})
    return state.model_copy(update={"watched": True})


def changed(state: HostState, instance: str, **fields: Any) -> HostState:
    one = state.instances[instance].model_copy(update=fields)
    return state.model_copy(update={"instances": {**state.instances, instance: one}})


def test_a_host_that_serves_its_plan_has_no_difference() -> None:
    found = on(served())
    assert found == HostDiff(host="lab-1")
    assert not found.changes


def test_a_bare_host_gets_everything() -> None:
    found = on(bare(PLAN), {"chat": None, "long": None})
    assert found.packages == PLAN.packages
    assert found.releases == (f"llama.cpp {PLAN.releases[0].key}",)
    assert (found.files, found.fetch_bytes) == (1, 3 * GIB)
    assert found.keys == ("chat", "long")
    assert found.others == ("ports are reserved",)
    assert [one.changes for one in found.instances] == [("new",), ("new",)]
    assert found.instances[0].from_generation is None


def test_bytes_that_are_staged_are_not_fetched_again() -> None:
    state, path = served(), PLAN.shards[0].path
    partly = {path: {"proved": False, "staged_bytes": GIB}}
    state = HostState.model_validate({**state.model_dump(), "shards": partly})
    assert (on(state).files, on(state).fetch_bytes) == (1, 2 * GIB)


def test_another_generation_says_what_differs() -> None:
    state = changed(served(), "chat", serves=False, installed_generation=OLD.generation)
    found = on(state, chat=OLD.model_dump(mode="json"))
    (one,) = found.instances
    assert (one.instance, one.from_generation) == ("chat", OLD.generation)
    assert one.to_generation == PLAN.instances[0].generation
    assert "quant F16 -> Q8_0" in one.changes


def test_a_generation_without_a_readable_plan_is_unknown_and_a_difference() -> None:
    state = changed(served(), "chat", serves=False, installed_generation="0" * 16)
    assert on(state).instances[0].changes == ("unknown: the old plan is not readable there",)


def test_new_keys_are_a_difference_of_key_and_instance() -> None:
    found = on(served(), {**KEYS, "long": "c" * 64})
    assert found.keys == ("long",)
    assert [one.changes for one in found.instances] == [("its keys are to be replaced",)]


def test_a_stopped_server_says_so() -> None:
    state = changed(served(), "chat", serves=False, differs=("it is stopped",))
    assert on(state).instances[0].changes == ("it is stopped",)


def test_only_missing_packages_of_the_plan_count() -> None:
    state = served().model_copy(update={"missing_packages": ("zstd", "emacs")})
    assert on(state).packages == ("zstd",)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"closed": ("/etc/corral",)}, "modes are corrected: /etc/corral"),
        ({"ports_reserved": False}, "ports are reserved"),
        ({"watched": False}, "the service that watches servers is installed"),
        ({"unused_releases": ("llama.cpp 1",)}, "unused engine releases are removed: llama.cpp 1"),
        (
            {"monitoring": MonitoringState(differs=("no timer",), missing_packages=("x",))},
            "monitoring: no timer",
        ),
    ],
)
def test_every_other_stage_of_a_deploy_is_a_difference(
    changes: dict[str, Any], sentence: str
) -> None:
    found = on(served().model_copy(update=changes))
    assert found.others[0] == sentence
    assert found.changes


@pytest.mark.parametrize(
    ("hosts", "code"),
    [
        ([HostDiff(host="a")], 0),
        ([HostDiff(host="a"), HostDiff(host="b", files=1)], 2),
        ([HostDiff(host="a", problem="silent"), HostDiff(host="b", files=1)], 1),
        ([HostDiff(host="a", gateway=("new",))], 2),
    ],
)
def test_the_exit_code_tells_none_some_and_unknown(hosts: list[HostDiff], code: int) -> None:
    assert FleetDiff(hosts=tuple(hosts)).exit_code == code


def test_a_person_reads_every_part() -> None:
    silent = HostDiff(host="lab-9", problem="no answer")
    all_of_it = FleetDiff(
        hosts=(
            on(bare(PLAN), {"chat": None, "long": None}).model_copy(update={"gateway": ("new",)}),
            HostDiff(host="lab-2"),
            silent,
        )
    )
    text = "\n".join(diff_lines(all_of_it))
    for part in (
        "lab-1\n  packages to install: aria2",
        f"  engine release to install: llama.cpp {PLAN.releases[0].key}",
        "  files of models: 1, 3.0 GiB to fetch",
        "  key files to write: chat, long",
        f"  chat: none -> {PLAN.instances[0].generation}, first",
        "  gateway: new",
        "lab-9: not compared: no answer",
        "no change: lab-2",
    ):
        assert part in text


class Helper:
    """A host's answers."""

    answers: ClassVar[list[Any]] = []

    def answer(self) -> Any:
        return self.answers.pop(0)

    def __init__(self, state: HostState) -> None:
        self._state = state

    def ask(self, command: list[str], *_: Any) -> Any:
        if command == ["state"]:
            return self._state
        raise CorralError("lab-1", "asked for what it need not", "see the test")


def asked(monkeypatch: pytest.MonkeyPatch, state: HostState, lost: bool) -> HostDiff:
    monkeypatch.setattr(differences, "travelling_helper", lambda _: Helper(state))

    def key_of(*_: Any) -> KeyFile:
        if lost:
            raise LostKeysError(["lab-1/chat"], "the store has none")
        return KeyFile(path="x", text="k" * 40)

    planned: HostPlan = plan(CHAT)
    return host_diff(host(CHAT), planned, key_of)


def test_keys_that_no_host_has_yet_would_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    found = asked(monkeypatch, bare(plan(CHAT)), lost=True)
    assert (found.problem, found.keys) == ("", ("chat",))


def test_keys_that_only_the_host_has_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    state = changed(bare(plan(CHAT)), "chat", has_keys=True)
    found = asked(monkeypatch, state, lost=True)
    assert "the store has none" in found.problem
    assert "corral keys adopt lab-1/chat" in found.problem


def test_another_helper_and_releases_for_others_are_differences(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    planned = plan(CHAT)
    keys = {"chat": KeyFile(path="x", text="k" * 40).digest}
    state = settled(planned, keys).model_copy(update={"watched": True})
    other = planned.releases[0].model_copy(update={"key": "other"})
    builder = planned.model_copy(update={"builds": (*planned.releases, other)})
    monkeypatch.setattr(differences, "travelling_helper", lambda _: Helper(state))
    monkeypatch.setattr(Helper, "ask", lambda self, *_: self.answer())

    def compare(**changes: Any) -> tuple[str, ...]:
        Helper.answers = [state.model_copy(update=changes), ObservedInstances(instances={})]
        found = host_diff(
            host(CHAT, archives_folder=str(tmp_path)),
            builder,
            lambda *_: KeyFile(path="x", text="k" * 40),
        )
        assert found.problem == ""
        return found.others

    ours = differences.helper_sha256()
    built = "engine release llama.cpp other is built for other hosts"
    assert compare(helper_sha256=ours) == (built,)
    assert compare(helper_sha256="0" * 64) == ("the host helper is replaced", built)
    releases = {**state.releases, "other": True}
    assert compare(helper_sha256=ours, releases=releases) == ()


def test_a_host_without_root_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    found = asked(monkeypatch, HostState(not_root="user bob"), lost=False)
    assert "the login is not root there" in found.problem
    assert '(user bob). Next: add "_sudo": True' in found.problem
