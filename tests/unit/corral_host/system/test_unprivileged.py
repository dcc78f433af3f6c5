"""Programs of an archive run as a user that owns nothing, and end with their job."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit import helper_hosts as hosts
from tests.unit.helper_modules import helper_module
from tests.unit.release_samples import Engine, release

unprivileged = helper_module("system.unprivileged")
programs = helper_module("release.programs")
smoke = helper_module("release.smoke")
HostError = helper_module("system.commands").HostError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up being root")

# The server of an archive: prints its user, and tries what only root can do.
CURIOUS = """
import os, subprocess
def tries(path):
    try:
        return "open" if open(path) else ""
    except OSError as error:
        return type(error).__name__
print("I am", os.getuid(), os.geteuid(), os.getgid(), os.getgroups(), flush=True)
print("shadow", tries("/etc/shadow"), flush=True)
"""
LINGERS = """
import os, subprocess
left = subprocess.Popen(["sleep", "300"], start_new_session=True)
"""


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts.no_gpu(monkeypatch)


def log_of(spec: dict[str, Any], folder: Path) -> str:
    with programs.bare_environment() as environment:
        log: str = smoke.smoke(spec, folder, environment)[1]
    return log


@as_root
def test_the_server_of_a_smoke_run_is_nobody(tmp_path: Path, engine: Engine) -> None:
    engine.make(tmp_path / "staging" / "bin" / "llama-server", first=CURIOUS)
    log = log_of(release(tmp_path), tmp_path / "staging")
    user = next(line for line in log.splitlines() if line.startswith("I am")).split()[2]
    assert int(user) in unprivileged.USERS
    assert f"I am {user} {user} {user} []" in log
    assert "shadow PermissionError" in log


@as_root
def test_nothing_of_it_goes_on_in_the_background(tmp_path: Path, engine: Engine) -> None:
    engine.make(tmp_path / "staging" / "bin" / "llama-server", first=LINGERS)
    log_of(release(tmp_path), tmp_path / "staging")
    deadline = time.monotonic() + 120
    while left := [pid for user in unprivileged.USERS for pid in unprivileged.ours(user)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


@as_root
def test_a_container_with_the_same_user_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    user, real = unprivileged.USERS[-1], unprivileged.control_group
    with (
        subprocess.Popen(["sleep", "60"], user=user) as own,
        subprocess.Popen(["sleep", "60"], user=user) as other,
    ):
        groups = {other.pid: "0::/system.slice/container.scope"}
        monkeypatch.setattr(unprivileged, "control_group", lambda pid: groups.get(pid) or real(pid))
        assert unprivileged.living(user) == [own.pid]
        unprivileged.end_all(user)
        assert own.wait() == -signal.SIGKILL
        assert other.poll() is None
        other.kill()


@as_root
def test_a_program_that_is_asked_and_its_loader_are_nobody() -> None:
    with programs.bare_environment() as environment:
        said, _ = programs.ask("/usr/bin/id", ["-u"], environment)
        owner = Path(environment["HOME"]).stat()
    assert int(said) in unprivileged.USERS
    assert owner.st_uid == int(said)
    assert owner.st_mode & 0o777 == 0o700
    assert not Path(environment["HOME"]).exists()


@as_root
def test_the_loader_that_a_program_names_is_nobody(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.make(tmp_path / "bin" / "llama-server")
    libraries = helper_module("release.libraries")
    ran: list[dict[str, Any]] = []

    def run(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        ran.append(options)
        return subprocess.CompletedProcess(arguments, 0, "", "")

    with unprivileged.home_of_nobody() as home:
        monkeypatch.setattr(libraries.subprocess, "run", run)
        libraries.prove_self_contained(tmp_path, home)
    assert [one["user"] in unprivileged.USERS for one in ran] == [True]
    assert ran[0]["extra_groups"] == ()


def test_who_is_not_root_runs_it_as_oneself(monkeypatch: pytest.MonkeyPatch) -> None:
    own = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: own or 1000)
    with unprivileged.home_of_nobody() as home:
        assert Path(home).stat().st_uid == own


@as_root
def test_a_user_that_has_a_process_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = [(1, user) for user in unprivileged.USERS[:-1]]
    monkeypatch.setattr(unprivileged, "processes", lambda: iter(taken))
    with unprivileged.free_user() as user:
        assert user == unprivileged.USERS[-1]
    taken.append((1, unprivileged.USERS[-1]))
    with pytest.raises(HostError, match="Next: find processes .*`ps"), unprivileged.free_user():
        pass


@as_root
def test_two_jobs_at_once_are_two_users() -> None:
    """Also while neither has a process: the end of one job would kill the other's."""
    with unprivileged.free_user() as one, unprivileged.free_user() as other:
        assert one != other
