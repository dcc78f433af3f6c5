"""Jobs of one name follow each other: the run's id distinguishes results and reports."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module
from tests.unit.switch_host import Host, HostError, Killed, choose, played

__all__ = ["played"]

jobs = helper_module("jobs")
NAME = "activate-chat"


@pytest.fixture
def host(played: Host, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host on which jobs are started; `ran` runs them."""
    monkeypatch.setattr(jobs, "JOBS", played.root / "jobs")
    monkeypatch.setattr(jobs, "is_running", lambda _: False)
    monkeypatch.setattr(jobs, "launch", lambda *_: None)
    choose(monkeypatch, "in place")
    return played


def started(host: Host, **changes: Any) -> str:
    job = {"kind": "activate", "spec": host.spec("b"), "by": "anna", **changes}
    run: str = jobs.start(NAME, job)["run"]
    return run


def killed(host: Host, step: int) -> None:
    """Run the job up to a step; nothing settles it."""
    host.die_at = step
    with pytest.raises(Killed):
        jobs.run(NAME)
    host.die_at = None


def poll() -> dict[str, Any]:
    found: dict[str, Any] = jobs.poll(NAME, 0)
    return found


def without_run(path: Path) -> None:
    """The job as a helper of an earlier version wrote it."""
    document = json.loads(path.read_text())
    document.pop("run", None)
    document.get("report", {}).pop("run", None)
    path.write_text(json.dumps(document))


def test_each_start_has_an_id_of_its_own_which_is_everywhere(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = started(host)
    monkeypatch.setattr(jobs, "is_running", lambda _: True)
    job = {"kind": "activate", "spec": host.spec("b"), "by": "ben"}
    assert jobs.start(NAME, job) == {"joined": True, "by": "anna", "run": run}
    monkeypatch.setattr(jobs, "is_running", lambda _: False)
    assert jobs.run(NAME) == 0
    progress = poll()
    assert (progress["run"], progress["answer"]["run"], progress["answer"]["outcome"]) == (
        run,
        run,
        "kept",
    )
    (kept,) = helper_module("instance.history").history({"state": str(host.root / "state")})
    assert kept["run"] == run
    assert started(host) != run
    assert poll()["answer"] is None


def test_what_an_earlier_job_left_is_settled_and_is_no_result_of_this_one(host: Host) -> None:
    first = started(host)
    killed(host, 10)
    assert (poll()["unsettled"], poll()["unsettled_run"]) == (True, first)
    second = started(host)
    assert (poll()["run"], poll()["unsettled"], poll()["unsettled_run"]) == (second, False, first)
    jobs.settle(NAME)
    progress = poll()
    assert (progress["answer"], progress["error"]) == (None, str(jobs.NO_RESULT))
    assert (progress["unsettled"], progress["unsettled_run"]) == (False, None)
    (report,) = helper_module("instance.history").history({"state": str(host.root / "state")})
    assert (report["run"], report["outcome"]) == (first, "reverted")


def test_its_own_that_is_settled_is_its_result(host: Host) -> None:
    run = started(host)
    killed(host, 10)
    jobs.settle(NAME)
    assert (poll()["answer"]["run"], poll()["answer"]["outcome"]) == (run, "reverted")


def test_a_result_of_another_run_is_none(host: Host) -> None:
    started(host)
    result = {"ok": True, "error": "", "answer": {}, "run": "another"}
    (jobs.JOBS / NAME / "result.json").write_text(json.dumps(result))
    assert (poll()["ok"], poll()["error"]) == (False, str(jobs.NO_RESULT))


def test_files_of_an_earlier_helper_still_settle(host: Host) -> None:
    started(host)
    killed(host, 10)
    for path in (jobs.JOBS / NAME / "job.json", host.folder / "activating.json"):
        without_run(path)
    assert (poll()["run"], poll()["unsettled"]) == (None, True)
    jobs.settle(NAME)
    assert (poll()["run"], poll()["answer"]["outcome"]) == (None, "reverted")


def test_a_refused_revert_carries_its_own_run(host: Host) -> None:
    spec = {**host.spec("b"), "instance": "chat", "to": "a"}
    run = started(host, kind="revert", spec=spec)
    holding = helper_module("system.locks")
    with holding.held(holding.activate_lock(host.root / "state"), "ben", "activating long"):
        assert jobs.run(NAME) == 1
    assert (poll()["answer"]["run"], poll()["answer"]["outcome"]) == (run, "refused")
    assert "ben is activating long" in poll()["error"]
    with pytest.raises(HostError):
        jobs.SWITCHES["revert"](spec | {"to": "z"}, "anna", "r")


def test_a_poll_asks_systemd_once_a_second_and_notices_a_death(
    host: Host,  # noqa: ARG001 - where jobs are
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each question costs a process and systemd's time; files are looked at more often."""
    now, looks, asked = [0.0], [0], [0.0]

    def is_running(_: str) -> bool:
        asked.append(now[0])
        return now[0] < 3

    def sleep(seconds: float) -> None:
        looks[0] += 1
        now[0] += seconds

    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=sleep)
    monkeypatch.setattr(jobs, "time", clock)
    monkeypatch.setattr(jobs, "is_running", is_running)
    found = poll()
    assert (found["running"], found["error"]) == (False, str(jobs.NO_RESULT))
    assert 3 <= now[0] < 4.1
    assert len(asked) <= 6
    assert looks[0] > 4 * len(asked)
