"""A build on a host: its result, its messages, and the builds for which it waits."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.samples import ROOT
from tests.unit import helper_hosts as hosts
from tests.unit.helper_modules import helper_module
from tests.unit.release_samples import Engine

build, users = helper_module("release.build"), helper_module("release.build_user")
unprivileged = helper_module("system.unprivileged")
locks = helper_module("release.locks")
HostError = helper_module("system.commands").HostError

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("public")]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up being root")


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    """Spec of an engine with a repository, on a host without GPUs and with enough memory."""
    return hosts.release_to_build(tmp_path)


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts.build_host(monkeypatch)


def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engine: Engine, commit: str) -> None:
    version = f"version: 1 (build 1, commit {commit[:7]})"
    made = engine.make(tmp_path / "made", version=version)
    hosts.cmake(monkeypatch, tmp_path, f"mkdir -p bin; cp {made} bin/llama-server")


def test_it_leaves_a_release_and_its_archive(
    monkeypatch: pytest.MonkeyPatch,
    spec: dict[str, Any],
    engine: Engine,
    tmp_path: Path,
) -> None:
    compiled(monkeypatch, tmp_path, engine, spec["commit"])
    answer = build.build(spec)
    manifest = answer["manifest"]
    assert manifest["commit"] == spec["commit"]
    assert manifest["smoke"] == "24 tokens on CPU"
    assert "--ctx-size" in manifest["flags"]
    assert manifest["found"]["c_library"] == spec["artifact"]["toolchain"]["c_library"]
    assert manifest["build_seconds"] >= 0
    assert helper_module("observe.state").release_is_whole(spec)
    assert Path(answer["archive"]["path"]).stat().st_size == answer["archive"]["size_bytes"]
    work = Path(spec["state"]) / "build" / "llama.cpp"
    assert [path.name for path in work.iterdir()] == ["source"]


def test_it_is_done_once(
    monkeypatch: pytest.MonkeyPatch,
    spec: dict[str, Any],
    engine: Engine,
    tmp_path: Path,
) -> None:
    compiled(monkeypatch, tmp_path, engine, spec["commit"])
    first = build.build(spec)
    hosts.cmake(monkeypatch, tmp_path, "exit 1")
    assert build.build(spec) == first
    assert build.repack(spec) == first


@pytest.mark.parametrize(
    ("said", "reported"),
    [
        ("/s/x.cpp:7:3: error: no such thing", "x.cpp:7:3: error.*Next: fix"),
        ("cc1plus: fatal error: out.o: No space left on device", "Next: free space"),
        ("c++: fatal error: Killed signal terminated program cc1plus", "ran out of memory"),
        ("nvcc fatal   : Unsupported gpu architecture", "nvcc fatal.*Next: fix"),
        ("ninja: build stopped", "cmake ended with exit code 1"),
    ],
)
def test_a_failure_says_why_and_installs_nothing(
    monkeypatch: pytest.MonkeyPatch,
    spec: dict[str, Any],
    tmp_path: Path,
    said: str,
    reported: str,
) -> None:
    noise = "[1/2] Building CXX object error.cpp.o"
    hosts.cmake(monkeypatch, tmp_path, f"echo '{noise}'; echo '{said}' >&2; touch kept; exit 1")
    with pytest.raises(HostError, match=reported) as raised:
        build.build(spec)
    assert noise not in str(raised.value)
    assert not Path(spec["folder"]).parent.exists()
    # The next attempt uses the compiled objects.
    assert (build.work_folder(spec) / spec["key"] / "kept").exists()


def test_a_program_of_another_commit_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
    spec: dict[str, Any],
    engine: Engine,
    tmp_path: Path,
) -> None:
    compiled(monkeypatch, tmp_path, engine, "dead" * 10)
    with pytest.raises(HostError, match="does not name commit"):
        build.build(spec)
    assert list(Path(spec["folder"]).parent.iterdir()) == []


def test_the_compilers_know_the_planned_nvcc_and_nothing_of_the_caller(
    monkeypatch: pytest.MonkeyPatch, spec: dict[str, Any], tmp_path: Path
) -> None:
    monkeypatch.setenv("CXXFLAGS", "-O0")
    hosts.on_path(monkeypatch, tmp_path / "path", "cmake", 'env >"$HOME/env"; echo $@')
    nvcc = "/usr/local/cuda-12.8/bin/nvcc"
    with users.build_home(spec) as home:
        build.compile_release(tmp_path, tmp_path / "objects", spec, nvcc, home)
        lines = (home / "env").read_text().splitlines()
    assert "CUDACXX=/usr/local/cuda-12.8/bin/nvcc" in lines
    assert any(line.startswith("PATH=/usr/local/cuda-12.8/bin:") for line in lines)
    assert not [line for line in lines if line.startswith("CXXFLAGS")]


def test_an_absent_release_cannot_be_packed(spec: dict[str, Any]) -> None:
    with pytest.raises(HostError, match="is not installed here"):
        build.repack(spec)


HOLD = """
import json, sys
from corral_host.release import locks
spec = json.load(sys.stdin)
with locks.one_build(spec):
    print(locks.build_lock(spec).read_text(), flush=True)
"""


def test_a_build_waits_for_another_and_says_for_whom(spec: dict[str, Any]) -> None:
    path = locks.build_lock(spec)
    path.parent.mkdir(parents=True)
    with path.open("w") as held:
        held.write("ik_llama.cpp 123 on gpu-02")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = subprocess.Popen(
            [sys.executable, "-c", HOLD], env={**os.environ, "PYTHONPATH": str(ROOT / "files")},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert waiting.stdin
        assert waiting.stdout
        waiting.stdin.write(json.dumps(spec))
        waiting.stdin.close()
        said = waiting.stdout.readline()
        assert said == "waiting for another build: ik_llama.cpp 123 on gpu-02\n"
    assert spec["key"] in waiting.stdout.readline()
    assert waiting.wait() == 0
