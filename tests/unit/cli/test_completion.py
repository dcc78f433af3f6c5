"""Completion of shells: in a real bash, and as zsh and fish ask for words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import BashComplete

from corral.cli import COMPLETE, cli, completion
from tests.samples import ROOT
from tests.unit.cli.test_cli import Corral, corral

pytestmark = pytest.mark.slow

__all__ = ["corral"]


@pytest.fixture
def environment(corral: Corral, tmp_path: Path) -> dict[str, str]:
    """With `corral` in the PATH, and an `ssh` that leaves a mark when a host is asked."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in {
        "corral": f'exec {sys.executable} -c "from corral.cli import main; main()" "$@"',
        "ssh": f"touch {tmp_path / 'asked'}",
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    return {"PATH": path, "PYTHONPATH": f"{ROOT}:{ROOT / 'files'}", "HOME": str(corral.root)}


def in_shell(corral: Corral, environment: dict[str, str], *command: str) -> list[str]:
    done = subprocess.run(
        command, cwd=corral.root, env=environment, capture_output=True, text=True, check=True
    )
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines()


def offered(corral: Corral, environment: dict[str, str], line: str) -> list[str]:
    """The words that bash offers where a line ends."""
    script = (
        'source <(corral completion bash); read -ra COMP_WORDS <<< "$1"\n'
        "COMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n"
        '_corral_completion corral; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    return in_shell(corral, environment, "bash", "--norc", "-euc", script, "bash", line)


@pytest.mark.parametrize(
    ("words", "begun", "found"),
    [
        ("", "sta", ["start", "status"]),
        ("status", "node-2", ["node-2", "node-2/chat"]),
        ("gateway drain", "node-1/", ["node-1/chat", "node-1/long"]),
        ("logs", "lo", ["long"]),
        ("rollout inventories/site.py --limit", "node", ["node-1", "node-2"]),
        ("plan", "n", ["node-1", "node-2"]),
        ("status -i inventories/other.py", "", ["else-1"]),
        ("completion", "z", ["zsh"]),
    ],
)
def test_commands_and_names_are_offered(
    corral: Corral, words: str, begun: str, found: list[str]
) -> None:
    other = 'print("noise")\nservers = [("else-1", {"instances": []})]\n'
    (corral.root / "inventories" / "other.py").write_text(other)
    corral.monkeypatch.chdir(corral.root)
    shell = completion._with_names(BashComplete)(cli, {}, "corral", COMPLETE)
    offered = [one.value for one in shell.get_completions(words.split(), begun)]
    assert offered == found
    assert corral.capsys.readouterr().out == ""


def test_an_inventory_that_cannot_be_read_offers_nothing(corral: Corral) -> None:
    (corral.root / "inventories" / "site.py").write_text("servers = [(\n")
    corral.monkeypatch.chdir(corral.root)
    shell = completion._with_names(BashComplete)(cli, {}, "corral", COMPLETE)
    assert shell.get_completions(["status"], "") == []


def test_a_real_bash_offers_names_and_asks_no_host(
    corral: Corral, environment: dict[str, str]
) -> None:
    assert offered(corral, environment, "corral status node-2") == ["node-2", "node-2/chat"]
    assert not list(corral.root.glob("**/asked"))


@pytest.mark.parametrize(
    ("asked", "words", "typed"),
    [
        ("zsh_complete", "corral status node-2", {"COMP_CWORD": "2"}),
        ("fish_complete", "corral status node-2", {"COMP_CWORD": "node-2"}),
    ],
)
def test_zsh_and_fish_are_answered(
    corral: Corral, environment: dict[str, str], asked: str, words: str, typed: dict[str, str]
) -> None:
    shell = {"_CORRAL_COMPLETE": asked, "COMP_WORDS": words, **typed}
    found = in_shell(corral, environment | shell, "corral")
    assert any("node-2/chat" in line for line in found)
    assert not any("node-1" in line for line in found)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(corral: Corral, shell: str) -> None:
    said = corral("completion", shell)
    assert (said.code, said.err) == (0, "")
    assert f"_CORRAL_COMPLETE={shell}_complete" in said.out
