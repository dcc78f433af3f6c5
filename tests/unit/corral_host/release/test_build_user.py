"""A build runs as a user of its own: what it can access, leaves behind, and what root takes."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit import helper_hosts as hosts
from tests.unit.helper_modules import helper_module
from tests.unit.release_samples import Engine

build, users, taking = (
    helper_module(name) for name in ("release.build", "release.build_user", "release.taking")
)
libraries, locks = helper_module("release.libraries"), helper_module("release.locks")
unprivileged = helper_module("system.unprivileged")
HostError = helper_module("system.commands").HostError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("public"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up being root"),
]

Make = Callable[[str], None]


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    return hosts.release_to_build(tmp_path)


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts.build_host(monkeypatch)


@pytest.fixture
def compiles(
    monkeypatch: pytest.MonkeyPatch, spec: dict[str, Any], engine: Engine, tmp_path: Path
) -> Make:
    """Let a build make a valid program, and run a script among its objects before."""

    def with_script(script: str) -> None:
        version = f"version: 1 (build 1, commit {spec['commit'][:7]})"
        made = engine.make(tmp_path / "made", version=version)
        hosts.cmake(monkeypatch, tmp_path, f"{script}\nmkdir -p bin; cp {made} bin/llama-server")

    return with_script


def owners(folder: Path) -> set[int]:
    paths = [folder, *folder.rglob("*")]
    return {path.lstat().st_uid for path in paths}


def processes() -> list[int]:
    found: list[int] = unprivileged.living(users.BUILD_USER)
    return found


def test_a_build_is_nobody_who_could_read_or_write_what_is_root_s(
    spec: dict[str, Any], compiles: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    release, state, cache = spec["folder"], spec["state"], Path(spec["compiler_cache"])
    compiles(
        f"""
        echo "I am $(id -u) $(id -g) $(id -G), at home $(stat -c %u:%a $HOME $TMPDIR | xargs)"
        cat /etc/shadow; touch {release}.x {state}/x ../x; mv {cache}/locks {cache}/gone
        touch {cache}/cached
        """
    )
    build.build(spec)
    said = capfd.readouterr().out
    user = users.BUILD_USER
    assert f"I am {user} {user} {user}, at home {user}:700 {user}:700" in said
    for refused in ("/etc/shadow", f"{release}.x", f"{state}/x", "../x", "gone"):
        assert any(refused in line for line in said.splitlines() if "denied" in line or
                   "not permitted" in line or "No such file" in line), refused  # fmt: skip
    assert (cache / "cached").stat().st_uid == users.BUILD_USER
    assert stat.S_IMODE((cache / "locks").stat().st_mode) == 0o700
    assert owners(cache / "locks") == {0}


def test_what_it_made_is_root_s_and_nothing_of_it_goes_on(
    spec: dict[str, Any], compiles: Make
) -> None:
    compiles("setsid sleep 300 >/dev/null 2>&1 & :")
    build.build(spec)
    assert processes() == []
    release = Path(spec["folder"])
    assert owners(release) == {0}
    modes = {stat.S_IMODE(path.stat().st_mode) for path in release.rglob("*")}
    assert modes <= {0o755, 0o644}
    work = users.work_folder(spec)
    assert [path.name for path in work.iterdir()] == [users.SOURCE]
    assert stat.S_IMODE(work.stat().st_mode) == 0o700


def test_a_failed_build_leaves_no_process_and_its_objects(
    spec: dict[str, Any], compiles: Make
) -> None:
    compiles("touch kept; setsid sleep 300 >/dev/null 2>&1 & exit 1")
    with pytest.raises(HostError, match="could not be built"):
        build.build(spec)
    assert processes() == []
    assert (users.objects_folder(spec) / "kept").stat().st_uid == users.BUILD_USER


def test_what_an_earlier_version_left_is_gone_on_with(
    spec: dict[str, Any], compiles: Make, tmp_path: Path
) -> None:
    """Root's sources, objects and cache, closed by its umask, and the home of a killed build."""
    spec["compiler_cache"] = str(tmp_path / "corral" / "ccache")
    work, cache = users.work_folder(spec), Path(spec["compiler_cache"])
    objects = users.objects_folder(spec)
    for folder in (objects, cache / "0" / "1", work / users.HOME):
        folder.mkdir(parents=True)
    subprocess.run(["git", "clone", "-q", tmp_path / "repository", work / "source"], check=True)
    (work / "source" / ".git" / "index.lock").touch()
    for path in (objects / "kept", cache / "0" / "1" / "object", cache / "ccache.conf"):
        path.write_text("")
    for closed in (cache, cache.parent, work, work.parent, Path(spec["state"])):
        closed.chmod(0o700)
    shutil.rmtree(tmp_path / "repository")
    compiles(f"cat kept && echo 1 >kept && echo 1 >{cache}/0/1/object && echo 1 >>../source/new")
    build.build(spec)
    assert (cache / "0" / "1" / "object").read_text() == "1\n"
    assert owners(work / "source") == owners(cache / "0") == {users.BUILD_USER}
    assert (cache.stat().st_uid, cache.stat().st_gid) == (0, users.BUILD_USER)


def test_nothing_outside_is_given_away_by_a_link(spec: dict[str, Any], tmp_path: Path) -> None:
    objects, secret = users.objects_folder(spec), tmp_path / "secret"
    folder = tmp_path / "folder"
    folder.mkdir()
    for path in (secret, folder / "file"):
        path.write_text("root's")
    objects.mkdir(parents=True)
    (objects / "hard").hardlink_to(secret)
    (objects / "soft").symlink_to(secret)
    (objects / "below").symlink_to(folder)
    with users.build_home(spec):
        assert secret.stat().st_uid == (folder / "file").stat().st_uid == folder.stat().st_uid == 0
        assert not (objects / "hard").exists()
        assert secret.read_text() == "root's"


def test_another_engine_s_folder_is_closed_to_a_build(
    spec: dict[str, Any], compiles: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    other = users.work_folder({**spec, "engine": "other"})
    with users.build_home({**spec, "engine": "other"}):
        pass
    # The state after a killed build.
    other.chmod(0o755)
    compiles(f"touch {other}/source/planted")
    build.build(spec)
    assert "Permission denied" in capfd.readouterr().out
    assert not (other / "source" / "planted").exists()


def test_a_library_that_the_user_cannot_read_does_not_get_into_a_release(
    spec: dict[str, Any], compiles: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program brings its own loader, which may print any path."""
    compiles(":")
    monkeypatch.setattr(build, "wanted_libraries", lambda *_: [("libx.so", "/etc/shadow")])
    with pytest.raises(HostError, match="cp: cannot open '/etc/shadow'"):
        build.build(spec)
    assert not Path(spec["folder"]).exists()


def test_a_loader_s_odd_words_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    odd = subprocess.CompletedProcess([], 0, "any thing \x1b at all\n", "")
    monkeypatch.setattr(libraries.subprocess, "run", lambda *_, **__: odd)
    with pytest.raises(HostError, match="ldd .* said 'any thing .*x1b at all'.*Next:"):
        libraries.resolved(tmp_path)


def test_one_build_at_a_time_on_a_host_whatever_its_cache(spec: dict[str, Any]) -> None:
    with locks.one_build(spec):
        path = helper_module("system.locks").lock_path(spec["state"], "build")
        with helper_module("system.locks").lock_file(path) as lock:
            assert not helper_module("system.locks").take(lock, 2, 0)
            assert spec["key"] in path.read_text()


def test_what_compiles_nothing_waits_for_no_compiler_of_another_host(spec: dict[str, Any]) -> None:
    """A Python environment, or an image of one."""
    system = helper_module("system.locks")
    for kind in ("python-environment", "made-image"):
        release = {**spec, "artifact": {**spec["artifact"], "kind": kind}}
        with locks.one_build(release), system.lock_file(locks.build_lock(spec)) as lock:
            assert system.take(lock, 2, 0)


def odd_part(made: Path) -> None:
    (made / "lib").rmdir()
    (made / "lib").symlink_to("/usr/lib")


def another_s(made: Path) -> None:
    (made / "lib" / "libx.so").write_text("")
    os.chown(made / "lib" / "libx.so", 0, 0)


ODD: dict[str, Callable[[Path], object]] = {
    "libx.so, which is not a plain file": lambda made: (made / "lib" / "libx.so").symlink_to("x"),
    "pipe, which is not a plain file": lambda made: os.mkfifo(made / "lib" / "pipe"),
    "deep, which is not a plain file": lambda made: (made / "lib" / "deep").mkdir(),
    "libx.so, which belongs to user 0": another_s,
    "has more than one name": lambda made: (made / "lib" / "x").hardlink_to(
        made / "bin" / "llama-server"
    ),
    "bin, which holds llama-server, more": lambda made: (made / "bin" / "more").write_text(""),
    "bin, which holds nothing": lambda made: (made / "bin" / "llama-server").unlink(),
    "lib, which is not a folder": odd_part,
    "lib, which is missing": lambda made: (made / "lib").rmdir(),
    "has a name that no release has": lambda made: (made / "lib" / "a\nb").write_text(""),
    "is larger than 16 GiB": lambda made: os.truncate(made / "bin" / "llama-server", 1 << 35),
}


@pytest.mark.parametrize("why", ODD)
def test_root_takes_plain_files_of_the_user_s_alone(
    spec: dict[str, Any], tmp_path: Path, why: str
) -> None:
    made, staging = tmp_path / "made", tmp_path / "staging"
    staging.mkdir()
    for part in taking.PARTS:
        (made / part).mkdir(parents=True)
    (made / "bin" / "llama-server").write_text("program")
    users.give_tree(made)
    ODD[why](made)
    if why != "libx.so, which belongs to user 0":
        for path in made.rglob("*"):
            os.chown(path, users.BUILD_USER, users.BUILD_USER, follow_symlinks=False)
    with pytest.raises(HostError, match=f"{why}.*Nothing was installed. Next:"):
        taking.take(spec, made, staging)
    assert [path for path in staging.rglob("*") if path.is_file()] == []


def test_a_mode_is_not_taken_over(spec: dict[str, Any], tmp_path: Path) -> None:
    made, staging = tmp_path / "made", tmp_path / "staging"
    staging.mkdir()
    for part in taking.PARTS:
        (made / part).mkdir(parents=True)
    program = made / "bin" / "llama-server"
    program.write_text("program")
    users.give_tree(made)
    program.chmod(0o6777)
    taking.take(spec, made, staging)
    taken = staging / "bin" / "llama-server"
    assert (taken.read_text(), taken.stat().st_uid) == ("program", 0)
    assert stat.S_IMODE(taken.stat().st_mode) == 0o755
