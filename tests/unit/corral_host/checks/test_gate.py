"""The gate against servers that answer, hang, break off, need no key or answer gibberish."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module
from tests.unit.trial_server import RUNS, Behaviour, instance_plan, trial_server

pytestmark = pytest.mark.slow

probe_client = helper_module("server.probe_client")
gate = helper_module("checks.gate")
parts = helper_module("checks.server_probes")
ready = helper_module("checks.ready")
unit_probes = helper_module("checks.unit_probes")

CHAT = "/v1/chat/completions"


@pytest.fixture
def plan(
    does: Behaviour, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, Any]]:
    monkeypatch.setattr(ready, "show", lambda *_: RUNS)
    monkeypatch.setattr(parts, "ROUND_SECONDS", 0.01)
    monkeypatch.setattr(parts, "limit_seconds", lambda _: 0.3)
    with trial_server(does) as port:
        yield instance_plan(tmp_path, port)


def failure(plan: dict[str, Any], *asked: str) -> tuple[str, list[dict[str, Any]]]:
    with pytest.raises(gate.GateFailed) as caught:
        gate.gate(plan, asked or gate.EVERYTHING)
    return str(caught.value), caught.value.rows


def test_a_server_that_answers_passes_with_figures_and_limits(plan: dict[str, Any]) -> None:
    plan["gate"]["soak_seconds"] = 1
    rows = gate.gate(plan)
    assert [row["part"] for row in rows] == ["ready", "completion", "stream", "keys", "soak"]
    assert all(row["ok"] is True and row["figure"] and row["limit"] for row in rows)
    assert rows[0]["limit"] == "5 s"
    assert rows[1]["limit"] == "0.3 s"
    assert rows[3]["figure"] == "4 of 4 routes refuse"


def test_a_plan_from_before_there_were_gates_is_proved(plan: dict[str, Any]) -> None:
    del plan["gate"]
    rows = gate.gate(plan)
    assert [row["part"] for row in rows] == ["ready", "completion", "stream", "keys"]
    assert gate.before_start(plan) == []


def test_hanging_completions_are_found_out_while_health_is_ok(
    plan: dict[str, Any], does: Behaviour
) -> None:
    does.hangs = (CHAT,)
    reason, rows = failure(plan)
    assert reason == f"chat: completion failed: {CHAT}: no whole answer within 0.3 s"
    assert [row["ok"] for row in rows] == [True, False, None, None]
    assert rows[2] == {
        "part": "stream", "ok": None, "figure": "", "limit": "", "detail": "not asked",
    }  # fmt: skip


def test_an_answer_that_trickles_ends_at_its_limit(plan: dict[str, Any], does: Behaviour) -> None:
    does.trickles = True
    reason, _ = failure(plan, "completion")
    assert "no whole answer within 0.3 s" in reason


def test_what_trickles_ends_in_a_check_as_well(plan: dict[str, Any], does: Behaviour) -> None:
    does.trickles = True
    server = helper_module("server.http")
    # The second where nothing came meanwhile: the server has a busy machine, too.
    late = r"no (whole answer within|answer for) 0\.3 s"
    with pytest.raises(TimeoutError, match=late):
        server.call(plan, "POST", CHAT, server.chat(plan), server.first_key(plan), timeout=0.3)


def test_a_hanging_completion_of_sixteen_tokens_fails_within_a_minute() -> None:
    assert helper_module("server.http").chat({"alias": "m"})["max_tokens"] == 16
    assert probe_client.limit_seconds(16) == 52
    assert probe_client.SILENT_SECONDS == 60


def test_a_stream_that_breaks_off_is_told(plan: dict[str, Any], does: Behaviour) -> None:
    does.half = True
    reason, rows = failure(plan)
    assert "stream failed: the stream ended after" in reason
    assert [row["ok"] for row in rows] == [True, True, False, None]


def test_a_stream_that_tells_an_error_is_no_answer() -> None:
    with pytest.raises(parts.HostError, match="the stream has an error: boom"):
        probe_client.streamed('data: {"error": "boom"}\n\ndata: [DONE]\n\n')


def test_an_open_route_is_named(plan: dict[str, Any], does: Behaviour) -> None:
    does.opens = ("/props",)
    reason, rows = failure(plan)
    assert "3 of 4 routes refuse" in reason
    assert "GET /props answered 200" in rows[3]["detail"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"status": 500}, "answered 500"),
        ({"body": "[]"}, "TypeError"),
        ({"body": "{}"}, "KeyError"),
        ({"body": "oops"}, "JSONDecodeError"),
        ({"reply": " \n"}, "completion"),
    ],
)
def test_a_useless_completion_fails(
    plan: dict[str, Any], does: Behaviour, change: dict[str, Any], said: str
) -> None:
    vars(does).update(change)
    reason, rows = failure(plan)
    assert said in reason
    assert rows[1]["ok"] is False


def test_thoughts_alone_are_an_answer(plan: dict[str, Any], does: Behaviour) -> None:
    does.reply, does.thoughts = "", "Hm, hello"
    assert gate.gate(plan, ("completion", "stream"))


def test_a_server_that_was_started_again_meanwhile_fails(
    plan: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = iter(["1", "1", "2"])
    monkeypatch.setattr(ready, "show", lambda *_: {**RUNS, "InvocationID": next(starts)})
    reason, rows = failure(plan, "completion", "stream")
    assert "the server ended and was started again meanwhile" in reason
    assert [row["ok"] for row in rows] == [True, False]


def test_a_server_that_stops_answering_fails_the_soak(
    plan: dict[str, Any], does: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan["gate"]["soak_seconds"] = 60
    quick = parts.completion
    rounds = iter(range(9))

    def tired(instance: dict[str, Any]) -> Any:
        does.hangs = (CHAT,) if next(rounds) == 3 else ()
        return quick(instance)

    monkeypatch.setattr(parts, "completion", tired)
    reason, _ = failure(plan, "soak")
    assert "soak failed" in reason
    assert next(rounds) == 4


def test_a_server_that_falls_ill_fails_the_soak(plan: dict[str, Any], does: Behaviour) -> None:
    plan["gate"]["soak_seconds"] = 60
    does.health = 503
    reason, _ = failure(plan, "soak")
    assert "not healthy after 0 answers: 503" in reason


def test_memory_of_a_gpu_is_asked_for_where_the_plan_says_so(
    plan: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan["uses_gpu"] = True
    monkeypatch.setattr(unit_probes, "check_vram", lambda _: ("vram", False, "pid 7 holds 0 MiB"))
    reason, rows = failure(plan, "vram")
    assert "vram pid 7 holds 0 MiB, limit memory of GPU 0 or GPU 1, of no other" in reason
    assert rows[0]["ok"] is False


def test_a_proof_asks_for_no_figures() -> None:
    assert set(gate.EVERYTHING) - set(gate.PROOF) == {"speed", "soak"}


def test_the_servers_last_words_are_in_the_reason(
    plan: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = {**RUNS, "ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "1"}
    monkeypatch.setattr(ready, "show", lambda *_: dead)
    monkeypatch.setattr(ready, "journal_tail", lambda *_: "error: no such model")
    reason, rows = failure(plan)
    assert reason.startswith("chat: the server died at start (exit-code, exit status 1)")
    assert "error: no such model" in reason
    assert "error: no such model" not in rows[0]["detail"]
