"""Lock files that no other user can open, and how they name their holders."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module

release_locks, locks, bench = (
    helper_module(name) for name in ("release.locks", "system.locks", "bench.measure")
)
header_files = helper_module("weights.headers")
gateway, jobs, way_back = (
    helper_module(name) for name in ("gateway.control", "jobs", "activation.rollback")
)
HostError = helper_module("system.commands").HostError
NOBODY = 65534
# Tries to take each lock; prints which it got, and whether it may list the folder.
STRANGER = """
import fcntl, os, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
plain, *paths = sys.argv[1:]
print("sees", open(plain).read())
for path in paths:
    for what in (path, os.path.dirname(path)):
        try:
            fcntl.flock(os.open(what, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except PermissionError:
            continue
        print("locked", what)
"""


@pytest.fixture
def state() -> Iterator[Path]:
    """A folder that every user can enter, like /var/lib/corral."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def take_all(state: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Use every lock of the helper once, under a umask that hides nothing; returns their files."""
    monkeypatch.setattr(gateway, "LOCK", str(state / "run" / "locks" / "gateway.lock"))
    monkeypatch.setattr(jobs, "JOBS", state / "jobs")
    monkeypatch.setattr(jobs, "is_running", lambda _: False)
    monkeypatch.setattr(jobs, "launch", lambda *_: None)
    release = {
        "compiler_cache": str(state / "cache"),
        "engine": "e",
        "key": "k",
        "state": state,
        "artifact": {"kind": "cmake-build"},
    }
    before = os.umask(0)
    try:
        for lock in (
            release_locks.one_build(release), release_locks.changing_releases(release),
            release_locks.pruning(state),
            locks.held(locks.activate_lock(state), "anna", "activating"),
            locks.held(locks.rollout_lock(state), "anna", "rolling out"),
            bench.only_one({"state": state, "instance": "chat"}),
            header_files.proof_folder({"state": state}), gateway.changing(),
        ):  # fmt: skip
            with lock:
                pass
        jobs.start("fetch", {"kind": "fetch", "spec": {}})
    finally:
        os.umask(before)
    return sorted(
        path for path in state.rglob("*") if path.suffix == ".lock" or path.name == "lock"
    )


def modes(paths: list[Path]) -> set[tuple[int, int]]:
    found = [(path.stat().st_mode, path.parent.stat().st_mode) for path in paths]
    return {(stat.S_IMODE(mode), stat.S_IMODE(folder)) for mode, folder in found}


def test_no_other_user_can_open_or_lock_any_of_them(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = take_all(state, monkeypatch)
    assert [str(path.relative_to(state)) for path in paths] == [
        "cache/locks/corral-build.lock", "jobs/fetch/lock", "locks/activate.lock",
        "locks/bench.lock", "locks/build.lock", "locks/proofs.lock", "locks/releases.lock",
        "locks/rollout.lock",
        "run/locks/gateway.lock",
    ]  # fmt: skip
    assert modes(paths) == {(0o600, 0o700)}
    if os.geteuid() == 0:
        (state / "plain").write_text("this")
        (state / "plain").chmod(0o644)
        done = subprocess.run(
            [sys.executable, "-c", STRANGER, state / "plain", *paths],
            capture_output=True, text=True, check=True, cwd="/",
        )  # fmt: skip
        assert done.stdout == "sees this\n"


def test_those_that_stand_open_are_closed(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in take_all(state, monkeypatch):
        path.chmod(0o644)
        path.parent.chmod(0o755)
    assert modes(take_all(state, monkeypatch)) == {(0o600, 0o700)}


def link(path: Path) -> None:
    path.with_name("elsewhere").touch()
    path.symlink_to("elsewhere")


def foreign(path: Path) -> None:
    path.touch()
    os.chown(path, NOBODY, NOBODY)


OBSTACLES: dict[str, Any] = {"link": link, "folder": Path.mkdir, "pipe": os.mkfifo}
if os.geteuid() == 0:
    OBSTACLES["file of somebody else"] = foreign


@pytest.mark.parametrize("make", [True, False])
@pytest.mark.parametrize("what", OBSTACLES)
def test_what_is_no_lock_file_of_ours_is_refused(what: str, make: bool, tmp_path: Path) -> None:
    path = locks.activate_lock(tmp_path)
    path.parent.mkdir()
    OBSTACLES[what](path)
    with (
        pytest.raises(HostError, match=r"activate.lock: not used for locks, .*Next: "),
        locks.lock_file(path, make=make),
    ):
        pytest.fail("it was used")


def test_a_folder_that_is_a_link_or_somebody_elses_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "locks").symlink_to("elsewhere")
    with pytest.raises(HostError, match="locks: not used for locks"):
        locks.holder_of(locks.activate_lock(tmp_path))
    if os.geteuid() == 0:
        (tmp_path / "locks").unlink()
        (tmp_path / "elsewhere").rename(tmp_path / "locks")
        os.chown(tmp_path / "locks", NOBODY, NOBODY)
        with pytest.raises(HostError, match="belongs to user 65534"):
            locks.holder_of(locks.activate_lock(tmp_path))


def holder(**changes: Any) -> str:
    return json.dumps({"by": "anna", "doing": "at it", **locks.own_process(), **changes})


UNBELIEVED = {
    "no text": "", "null": "null", "number": "7", "text": '"text"', "list": "[1]", "half": "{",
    "deep": "[" * 60000, "no UTF-8": "\udc80", "no pid": holder(pid=None),
    "path for a pid": holder(pid="../self"), "another boot": holder(boot_id="another"),
    "another process": holder(started=1), "dead": holder(pid=2**40),
}  # fmt: skip


@pytest.mark.parametrize("text", UNBELIEVED.values(), ids=UNBELIEVED)
def test_who_cannot_be_believed_is_somebody(text: str, tmp_path: Path) -> None:
    path = locks.activate_lock(tmp_path)
    with locks.lock_file(path) as lock:
        path.write_text(text, errors="surrogateescape")
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert locks.holder_of(path) == {}
        described = locks.describe_holder(path)
        assert described.startswith("somebody is at work on this host since just now")
        path.write_text(holder())
        assert locks.holder_of(path)["by"] == "anna"
    assert locks.holder_of(path) is None


def test_who_only_looks_stands_in_nobodys_way(tmp_path: Path) -> None:
    path = locks.activate_lock(tmp_path)
    with locks.lock_file(path) as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.2, lambda: fcntl.flock(looking, fcntl.LOCK_UN)).start()
        with locks.held(path, "ben", "activating"):
            assert locks.holder_of(path)["by"] == "ben"


def test_who_only_looks_opens_nothing_for_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, plain, seen = locks.activate_lock(tmp_path), os.open, []

    def spied(name: Any, flags: int, *mode: int, **more: Any) -> int:
        seen.append(flags & os.O_ACCMODE)
        return plain(name, flags, *mode, **more)

    with locks.held(path, "ben", "activating"):
        monkeypatch.setattr(os, "open", spied)
        assert locks.holder_of(path)["by"] == "ben"
    assert set(seen) == {os.O_RDONLY}


def test_a_lock_without_room_for_words_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    path = locks.activate_lock(tmp_path)
    with locks.held(path, "anna", "activating"):
        pass
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with locks.held(path, "ben", "activating"):
            # Not the text of the previous holder.
            assert locks.holder_of(path) == {}


@pytest.mark.parametrize("journal", [True, False])
def test_settling_waits_with_a_limit_and_says_for_whom(
    journal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    task = {"state": str(tmp_path), "instance": "chat", "job": "j", "report": {}}
    folder = tmp_path / "instances" / "chat"
    folder.mkdir(parents=True)
    if journal:
        (folder / "activating.json").write_text(json.dumps(task))
    monkeypatch.setattr(way_back, "SETTLE_WAIT_SECONDS", 0.1)
    monkeypatch.setattr(locks, "LOOK_SECONDS", 0)
    monkeypatch.setattr(way_back.switch, "quiet", lambda *_: None)
    with (
        locks.held(locks.activate_lock(tmp_path), "anna", "activating long"),
        pytest.raises(HostError, match="anna is activating long"),
    ):
        way_back.guard(str(folder), str(tmp_path))
    assert "anna is activating long" in capsys.readouterr().out
    assert (folder / "activating.json").exists() is journal


def test_what_a_job_could_not_settle_is_left_to_the_guard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise HostError("anna has the lock")

    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(way_back, "settle", fail)
    monkeypatch.setattr(jobs.watchdog, "quiet", lambda *arguments: asked.append(arguments))
    with pytest.raises(HostError, match="anna"):
        jobs.settled(str(tmp_path / "chat"), str(tmp_path))
    assert asked == [("start", "--no-block", "corral-guard-chat.service")]


def test_a_guard_that_failed_comes_again() -> None:
    text = helper_module("activation.watchdog").SERVICE
    for line in ("Restart=on-failure", "StartLimitIntervalSec=0", "RestartSec={retry_seconds}"):
        assert line in text.splitlines()


def test_two_who_prune_at_the_same_moment_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, done, waits = str(tmp_path), [], threading.Event()
    monkeypatch.setattr(locks.time, "sleep", lambda _: waits.set())

    def second() -> None:
        with release_locks.pruning(state):
            done.append("second")

    thread = threading.Thread(target=second)
    with release_locks.pruning(state):
        thread.start()
        assert waits.wait(120), "it did not give up at once"
        assert not done
    thread.join()
    assert done == ["second"]


def test_who_prunes_does_not_wait_for_a_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release_locks, "PRUNE_WAIT_SECONDS", 0)
    with (
        release_locks.changing_releases({"state": str(tmp_path)}),
        pytest.raises(HostError, match="nothing was pruned"),
        release_locks.pruning(str(tmp_path)),
    ):
        pass
