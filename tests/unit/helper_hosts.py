"""What a host has, for modules of the helper: programs, GPUs, memory, an engine's repository."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.unit import release_samples as samples
from tests.unit.helper_modules import helper_module, program

_NAMES = {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def git(folder: Path, *words: str) -> str:
    """What git says in ``folder``."""
    done = subprocess.run(
        ["git", "-C", folder, *words],
        env={**os.environ, **_NAMES, "GIT_CONFIG_GLOBAL": "/dev/null"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def repository(folder: Path, spec: dict[str, Any]) -> Path:
    """An engine's repository with one commit, which ``spec`` names from now on."""
    folder.mkdir()
    git(folder, "init", "--quiet")
    git(folder, "config", "uploadpack.allowAnySHA1InWant", "true")
    (folder / "server.c").write_text("int one;\n")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "one")
    spec["artifact"]["source_url"] = folder.as_uri()
    spec["commit"] = git(folder, "rev-parse", "HEAD")
    return folder


def on_path(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, script: str) -> None:
    """Put a program before all others, for every module of the helper."""
    program(folder, name, script)
    tools = helper_module("system.commands")
    path = f"{folder}:{tools.PROGRAMS}"
    monkeypatch.setenv("PATH", path)
    for module in (
        "system.commands",
        "release.build",
        "release.sources",
        "release.programs",
        "release.toolchain",
    ):
        monkeypatch.setattr(helper_module(module), "PROGRAMS", path)


def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without GPUs."""
    gpus(monkeypatch)


def gpus(monkeypatch: pytest.MonkeyPatch, *free_mib: int) -> None:
    """GPUs with so much free memory."""
    listed = [
        {
            "index": index,
            "uuid": f"GPU-{index}",
            "memory_free_mib": free,
            "compute_capability": "9.0",
        }
        for index, free in enumerate(free_mib)
    ]
    answer = {"gpus": listed, "failure": "", "problem": ""}
    monkeypatch.setattr(helper_module("nvidia.nvidia_smi"), "ask", lambda: answer)


def memory(monkeypatch: pytest.MonkeyPatch, total_mib: int, available_mib: int) -> None:
    """A host with so much memory."""
    found = {"total_mib": total_mib, "available_mib": available_mib}
    monkeypatch.setattr(helper_module("system.kernel"), "memory", lambda: found)


def release_to_build(folder: Path) -> dict[str, Any]:
    """Of an engine whose repository is there."""
    made = samples.release(folder)
    repository(folder / "repository", made)
    return made


def build_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without GPUs, and with memory and programs enough."""
    no_gpu(monkeypatch)
    memory(monkeypatch, 64000, 32000)
    monkeypatch.setattr(helper_module("release.toolchain"), "find_program", lambda name: name)


def cmake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str) -> None:
    """A cmake whose ``--build OBJECTS`` runs a script in there; configuring makes it."""
    words = f'if [ "$1" = --build ]; then cd "$2"; {script}; else mkdir -p "$6"; fi'
    on_path(monkeypatch, tmp_path / "path", "cmake", words)
