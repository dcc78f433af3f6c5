"""Ready is a server that answers a request; what ended one is in the message."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.samples import ROOT
from tests.unit.helper_modules import helper_module
from tests.unit.trial_server import RUNS, Behaviour, instance_plan, trial_server

pytestmark = pytest.mark.slow

gate = helper_module("checks.gate")
ready = helper_module("checks.ready")
HostError = helper_module("system.commands").HostError
LOG = (ROOT / "tests" / "data" / "vllm" / "length-beyond-cache-log.txt").read_text()


@pytest.fixture
def plan(does: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(ready, "show", lambda *_: RUNS)
    monkeypatch.setattr(
        ready, "loaded_key", lambda one: helper_module("server.http").first_key(one)
    )
    with trial_server(does) as port:
        yield {**instance_plan(tmp_path, port), "kind": "vllm"}


def test_a_healthy_server_that_answers_no_request_is_not_ready(
    plan: dict[str, Any], does: Behaviour
) -> None:
    does.status = 500
    with pytest.raises(HostError, match=r"not ready within 1 s \(last answer: healthy, but"):
        ready.wait_ready({**plan, "ready_timeout_seconds": 1})


def test_it_is_ready_as_soon_as_a_request_is_answered(
    plan: dict[str, Any], does: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    does.status = 500
    heals = threading.Event()

    def said(_: str) -> None:
        heals.set()
        does.status = 200

    monkeypatch.setattr(ready, "say", said)
    ready.wait_ready(plan)
    assert heals.is_set(), "it was not ready at first, which is logged"
    (*_, (path, body)) = does.asked
    assert (path, body["max_tokens"]) == ("/v1/chat/completions", 1)


def test_health_is_enough_where_it_means_that(plan: dict[str, Any], does: Behaviour) -> None:
    does.status = 500
    ready.wait_ready({**plan, "kind": "llama.cpp"})
    assert [path for path, _ in does.asked] == ["/health"]


def test_the_end_of_a_server_has_its_reason_and_the_next_step(
    plan: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = {**RUNS, "ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "1"}
    monkeypatch.setattr(ready, "show", lambda *_: dead)
    monkeypatch.setattr(ready, "journal_tail", lambda *_: LOG)
    with pytest.raises(gate.GateFailed) as caught:
        gate.gate(plan)
    assert str(caught.value).startswith(
        "chat: the server died at start (exit-code, exit status 1): one request of 4000000 tokens "
        "needs 1.91 GiB of KV cache and 1.0 GiB are there; vLLM estimates that 2097024 tokens fit. "
        "Next: lower context_tokens_per_slot in the profile to 2097024 or less"
    )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("status", [200, 500])
def test_an_end_during_a_probe_has_its_reason(
    plan: dict[str, Any], does: Behaviour, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    does.status = status
    died = "(APIServer pid=7) ERROR 11-29 21:03:08 [x.py:1] Engine core proc E died unexpectedly"
    starts = iter(["first", "second"])
    monkeypatch.setattr(gate, "invocation", lambda _: next(starts))
    monkeypatch.setattr(gate, "journal_tail", lambda start, _: died if start == "first" else "")
    with pytest.raises(gate.GateFailed) as caught:
        gate.gate(plan, ("completion",))
    assert "the server ended and was started again meanwhile: a process of its engine ended" in str(
        caught.value
    )
    assert "Next: on the host, `journalctl -k`" in str(caught.value)


def test_a_reply_without_a_choice_is_no_answer(plan: dict[str, Any], does: Behaviour) -> None:
    does.body = json.dumps({"choices": []})
    assert ready.state(plan, 1).startswith("healthy, but it does not answer a request: a reply")
