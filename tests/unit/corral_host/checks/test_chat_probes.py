"""A tool call and reasoning: replies as vLLM 0.32 gives them, and how each goes wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module
from tests.unit.trial_server import Behaviour, instance_plan, trial_server

chat_probes = helper_module("checks.chat_probes")
gate = helper_module("checks.gate")
verify = helper_module("checks.verify")
GOOD = {"name": "get_weather", "arguments": '{"city": "\\n \\rRome", "metric": false}'}


@pytest.fixture
def plan(does: Behaviour, tmp_path: Path) -> Iterator[Any]:
    with trial_server(does) as port:
        asked = instance_plan(tmp_path, port, tool_call=True, reasoning=True)
        yield {**asked, "kind": "vllm", "metrics": False}


def reply(finish_reason: str = "stop", **message: Any) -> str:
    whole = {"role": "assistant", "content": None, "reasoning": None, **message}
    return json.dumps({"choices": [{"message": whole, "finish_reason": finish_reason}]})


def calls(*functions: Any) -> list[dict[str, Any]]:
    return [{"id": "x", "type": "function", "function": one} for one in functions]


def test_a_well_formed_call_passes_with_its_arguments(
    plan: dict[str, Any], does: Behaviour
) -> None:
    does.body = reply(content="", tool_calls=calls(GOOD))
    row = chat_probes.tool_call(plan)
    assert row["ok"], row
    assert row["detail"] == 'get_weather({"city": "\\n \\rRome", "metric": false})'
    ((_, body),) = does.asked
    assert (body["tool_choice"], body["temperature"], body["max_tokens"]) == ("required", 0, 256)
    assert body["frequency_penalty"] == 2
    assert body["tools"][0]["function"]["strict"] is True


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (reply(content="<tool_call>get_weather</tool_call>"), "no tool call, but text"),
        (reply(content="", tool_calls=[]), "no tool call, but text"),
        (
            reply("length", tool_calls=calls({**GOOD, "arguments": '{"city": "Rome"}'})),
            "not whole after 256 tokens",
        ),
        (reply(tool_calls=calls({**GOOD, "name": "get_wether"})), "a call of 'get_wether'"),
        (reply(tool_calls=calls({**GOOD, "arguments": "{"})), "arguments that are not JSON"),
        (reply(tool_calls=calls({**GOOD, "arguments": None})), "arguments that are not JSON"),
        (reply(tool_calls=calls({**GOOD, "arguments": "{}"})), "other arguments than the tool's"),
        (reply(tool_calls=calls({**GOOD, "arguments": '["city"]'})), "other arguments than"),
        (
            reply(tool_calls=calls({**GOOD, "arguments": '{"city": "Oslo", "metric": true}'})),
            "arguments that do not match the tool's schema",
        ),
        (
            reply(tool_calls=calls({**GOOD, "arguments": '{"city": "Rome", "metric": "true"}'})),
            "arguments that do not match the tool's schema",
        ),
        (reply(tool_calls=calls({**GOOD, "name": "x"}, GOOD)), "a call of 'x'"),
    ],
)
def test_what_is_no_call_of_the_tool_fails(
    plan: dict[str, Any], does: Behaviour, body: str, problem: str
) -> None:
    does.body = body
    row = chat_probes.tool_call(plan)
    assert not row["ok"]
    assert row["detail"].startswith(problem)


@pytest.mark.parametrize(
    "body",
    [
        reply(reasoning="Two weeks are", content=None, finish_reason="length"),
        reply(reasoning="Seven and seven.", content="14"),
        reply(reasoning_content="Seven and seven.", content="14"),
    ],
)
def test_reasoning_in_a_field_of_its_own_passes(
    plan: dict[str, Any], does: Behaviour, body: str
) -> None:
    does.body = body
    row = chat_probes.reasoning(plan)
    assert row["ok"], row


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (reply(content="<think>Seven and seven.</think>14"), "reasoning in the answer"),
        (reply(reasoning="Seven", content="and seven.</think>14"), "reasoning in the answer"),
        (reply(content="14"), "no reasoning"),
        (reply(reasoning=" ", content="14"), "no reasoning"),
        (reply(reasoning="Seven and seven.</think>14"), "the answer in the reasoning"),
    ],
)
def test_reasoning_that_is_not_apart_fails(
    plan: dict[str, Any], does: Behaviour, body: str, problem: str
) -> None:
    does.body = body
    row = chat_probes.reasoning(plan)
    assert not row["ok"]
    assert row["detail"].startswith(problem)


def test_what_follows_a_whole_call_is_not_judged(plan: dict[str, Any], does: Behaviour) -> None:
    does.body = reply("length", tool_calls=calls(GOOD, {**GOOD, "arguments": "{"}))
    assert chat_probes.tool_call(plan)["ok"]


def test_a_server_that_refuses_the_request_fails(
    plan: dict[str, Any], does: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    does.status = 400
    monkeypatch.setattr(gate, "invocation", lambda _: "first")
    for name in ("tool call", "reasoning"):
        with pytest.raises(gate.GateFailed, match=f"{name} failed: answered 400"):
            gate.gate(plan, (name,))
    rows = {row["check"]: row for row in verify.check_instance(plan)}
    assert not rows["tool call"]["ok"]
    assert not rows["reasoning"]["ok"]


def test_without_a_word_in_the_plan_neither_is_asked(plan: dict[str, Any]) -> None:
    quiet = {**plan, "gate": {"golden": [], "speed": None, "perplexity": None, "soak_seconds": 0}}
    asked = {row["check"] for row in verify.check_instance(quiet)}
    assert not asked & {"tool call", "reasoning"}
    assert {"tool call", "reasoning"} < {row["check"] for row in verify.check_instance(plan)}


def test_reasoning_alone_is_an_answer(plan: dict[str, Any], does: Behaviour) -> None:
    does.body = reply("length", reasoning="Two weeks are")
    assert helper_module("checks.server_probes").completion(plan)["ok"]
