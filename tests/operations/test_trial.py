"""A start with dummy weights, from the controller: what is sent, and how answers are shown."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pyinfra.api.command import FunctionCommand

from corral.host.trial import Figures, Trial
from corral.plan.instance import TrialPlan
from operations import trial
from tests.operations.fakes import commands, prepared, stdin
from tests.samples import CHAT, LONG, plan

TRIED = TrialPlan(unit="corral-job-trial.chat.service", socket="/run/s", argv=("python", "dummy"))
PLANNED = plan(CHAT, LONG)
WAITING = [PLANNED.instances[0].model_copy(update={"trial": TRIED})]
FIGURES = {
    "weights_gib": 100.97, "cache_gib": 20.07, "graphs_gib": 1.82, "cache_tokens": 114352,
    "request_tokens": 32768, "requests": 3.49,
}  # fmt: skip


def reported(answer: dict[str, Any]) -> bool:
    """Whether the operation accepts this answer of the job."""
    with prepared() as fake:
        (_, follow) = commands(trial.runs, PLANNED, waiting=WAITING)
        assert isinstance(follow, FunctionCommand)
        return bool(follow.args[-1](fake, answer))


def test_a_job_gets_the_instance_its_shards_and_no_secret() -> None:
    with prepared():
        start, follow = commands(trial.runs, PLANNED, waiting=WAITING)
    job = json.loads(stdin(start))
    assert job["kind"] == "trial"
    assert "token" not in job
    spec = job["spec"]
    assert spec["instance"]["trial"]["argv"] == ["python", "dummy"]
    assert {shard["path"] for shard in spec["shards"]} == set(WAITING[0].shards)
    assert follow.args[1] == "trial-chat"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (
            {"instance": "chat", "figures": FIGURES, "seconds": 153.2, "known": False, "at": "now"},
            "chat: with dummy weights it serves: weights 100.97 GiB, CUDA graphs 1.82 GiB, KV "
            "cache 20.07 GiB, 114,352 tokens of cache, 3.49 requests of 32,768 tokens at a time "
            "(153 s)",
        ),
        (
            {
                "instance": "chat",
                "figures": {"cache_tokens": 2048},
                "known": True,
                "at": "2026-11-29T21:00:00Z",
            },
            "chat: with dummy weights it serves: 2,048 tokens of cache (tried at 2026-11-29T21:",
        ),
        (
            {"instance": "chat", "figures": None, "skipped": "GPU 0 has 7 MiB free, it takes 9"},
            "chat: not tried with dummy weights, its memory is counted only: GPU 0 has 7 MiB free",
        ),
    ],
)
def test_the_result_is_a_line(
    answer: dict[str, Any], line: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="pyinfra")
    assert reported(answer)
    assert line in caplog.text


def test_an_answer_that_is_none_fails(caplog: pytest.LogCaptureFixture) -> None:
    assert not reported({"figures": {"weights_gib": "many"}})
    assert "its answer is not readable" in caplog.text


def test_a_log_without_figures_is_no_fault() -> None:
    assert str(Figures()) == "no figures"
    line = Trial(instance="chat", figures=Figures(), seconds=2).line()
    assert line == "chat: with dummy weights it serves: no figures (2 s)"
