"""Perplexity before a server starts: the program's figure, its limit, and missing files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module, program
from tests.unit.trial_server import instance_plan

gate = helper_module("checks.gate")

MAINLINE = "echo 'x' >&2; echo 'Final estimate: PPL = 9.5000 +/- 0.10000' >&2"
IK = "echo 'Final estimate: PPL over 12 chunks for n_ctx=512 = 9.5000 +/- 0.10000'"
UNIT = """[Service]
Environment=A=1 "B=2 3"
Environment=CUDA_VISIBLE_DEVICES=0,1
Environment=CUDA_CACHE_PATH=%C/corral-chat
"""


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    # Runs the command after the dashes.
    run = f'echo "$@" > {tmp_path}/run.log; while [ "$1" != -- ]; do shift; done; shift; "$@"'
    program(tmp_path / "bin", "systemd-run", run)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    staged = tmp_path / "generations" / "g1"
    staged.mkdir(parents=True)
    (staged / "unit").write_text(UNIT)
    (staged / "reference.txt").write_text("one two three")
    return instance_plan(
        tmp_path, 1,
        perplexity={
            "text": "wiki.txt", "text_path": str(staged / "reference.txt"), "limit": 10.0,
            "argv": [str(tmp_path / "bin" / "llama-perplexity"), "--model", "a b"],
        },
    )  # fmt: skip


def says(plan: dict[str, Any], script: str) -> None:
    program(Path(plan["folder"]) / "bin", "llama-perplexity", script)


def failure(plan: dict[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    with pytest.raises(gate.GateFailed) as caught:
        gate.before_start(plan)
    return str(caught.value), caught.value.rows


@pytest.mark.parametrize("script", [MAINLINE, IK], ids=["mainline", "ik"])
def test_the_figure_of_both_engines_is_read(plan: dict[str, Any], script: str) -> None:
    says(plan, script)
    (row,) = gate.before_start(plan)
    assert row == {
        "part": "perplexity", "ok": True, "figure": "9.5000 +/- 0.10000 on wiki.txt",
        "limit": "10", "detail": "",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "limit", "ok"), [("9.5", 9.5, True), ("9.51", 9.5, False), ("nan", 9.5, False)]
)
def test_no_more_than_the_limit_passes(
    plan: dict[str, Any], value: str, limit: float, ok: bool
) -> None:
    plan["gate"]["perplexity"]["limit"] = limit
    says(plan, f"echo 'Final estimate: PPL = {value} +/- 0.1'")
    if ok:
        assert gate.before_start(plan)[0]["ok"]
    else:
        reason, rows = failure(plan)
        assert f"perplexity {value} +/- 0.1 on wiki.txt, limit 9.5" in reason
        assert rows[0]["ok"] is False


@pytest.mark.parametrize(
    ("script", "said"),
    [("echo 'you need at least 1024 tokens'", "gave no estimate:\nyou need at least 1024 tokens"),
     ("echo 'no such model'; exit 3", "failed with exit code 3")],
)  # fmt: skip
def test_no_estimate_fails_with_the_programs_words(
    plan: dict[str, Any], script: str, said: str
) -> None:
    says(plan, script)
    reason, rows = failure(plan)
    assert said in reason
    assert rows[0]["ok"] is False


def test_an_estimate_that_was_lost_at_the_end_is_asked_for_again(
    plan: dict[str, Any], tmp_path: Path
) -> None:
    tries = tmp_path / "tries"
    says(
        plan,
        f"echo x >> {tries}; echo '[1]9.1,[2]9.5,'; [ $(wc -l < {tries}) -lt 2 ] || {MAINLINE}",
    )
    assert gate.before_start(plan)[0]["ok"]
    tries.unlink()
    says(plan, f"echo x >> {tries}; echo 'you need at least 1024 tokens'")
    failure(plan)
    assert tries.read_text() == "x\n"


def test_a_text_or_program_that_is_not_there_is_named(plan: dict[str, Any]) -> None:
    assert "llama-perplexity is missing. Next:" in failure(plan)[0]
    says(plan, MAINLINE)
    Path(plan["gate"]["perplexity"]["text_path"]).unlink()
    assert "reference.txt is missing. Next:" in failure(plan)[0]


def test_it_runs_where_the_staged_unit_would(plan: dict[str, Any]) -> None:
    says(plan, MAINLINE)
    gate.before_start(plan)
    arguments = (Path(plan["folder"]) / "run.log").read_text()
    for word in (
        "--unit=corral-perplexity-chat.service", "BindsTo=corral-job-activate-chat.service",
        "RuntimeMaxSec=1805", "DynamicUser=yes", "--setenv=A=1", "--setenv=B=2 3",
        "--setenv=CUDA_VISIBLE_DEVICES=0,1",
    ):  # fmt: skip
        assert word in arguments
    assert "CUDA_CACHE_PATH" not in arguments


def test_without_a_text_nothing_is_measured(plan: dict[str, Any]) -> None:
    plan["gate"]["perplexity"] = None
    assert gate.before_start(plan) == []
