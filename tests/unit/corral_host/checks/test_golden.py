"""Golden prompts: exact replies, patterns, and gibberish."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module
from tests.unit.trial_server import REPLY, Behaviour, instance_plan, trial_server

golden = helper_module("checks.golden")

PROMPT: dict[str, Any] = {
    "prompt": "Capital of France?", "max_tokens": 64, "exact": None, "require": [], "forbid": [],
}  # fmt: skip
SENSE = (
    REPLY,
    "42",
    "Yes.",
    "No no no no no.",
    "1. one\n2. two\n3. three\n4. four\n5. five",
    "法国的首都是巴黎,它位于塞纳河畔,也是该国最大的城市。",
    "Ha ha ha! No. " + REPLY,
    "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n\nA table of four numbers, two in each row.",
    "Heading\n----------------\nThe quick brown fox jumps over the lazy dog, and so on it goes.",
    "<think>\nThe user asks for 17 + 25. 17 + 25 = 42.\n</think>\n42",
    "for i in range(10):\n    for j in range(10):\n        print(i * j)\n",
)
NONSENSE = {
    "": "nothing was said",
    " \n\n ": "nothing was said",
    "The capital is Par\ufffds": "broken characters",
    "The capital\x00 is\x07 Paris": "broken characters (2",
    "@@@@@@@@@@@@@@@@@@@@@@@@@": "one character",
    "GGGGGGGG": "one character",
    "The capital is !!!!!!!!!!!!!!!!!!!!!!!!": "one character",
    "@ @ ! @ ! @ @ ! @ @ ! @ @": "one character",
    "Paris the the the the the the the the the the the the the": "one word",
    "ispspspspspspspspspspspspspsp": "one group",
    "not 不是不是不是不是不是不是不是不是不是": "one group",
    "I am well. I am well. I am well. I am well. I am well. I am": "one group",
    "The answer is\nand then\nand then\nand then\nand then\nand then\nand then": "one group",
}


@pytest.mark.parametrize("text", SENSE)
def test_sense_passes(text: str) -> None:
    assert golden.gibberish(text) == ""


@pytest.mark.parametrize("text", NONSENSE)
def test_gibberish_is_told(text: str) -> None:
    assert golden.gibberish(text).startswith(NONSENSE[text])


@pytest.mark.parametrize(
    ("changes", "reply", "problem"),
    [
        ({"exact": "Paris"}, "Paris", ""),
        ({"exact": "Paris"}, "Paris.", "not exactly 'Paris'"),
        ({"exact": "@@@@@@@@@@"}, "@@@@@@@@@@", ""),
        ({"require": ["Paris"]}, REPLY, ""),
        ({"require": ["Paris", "Rome"]}, REPLY, "nothing like 'Rome'"),
        ({"forbid": ["(?i)sorry"]}, "Sorry, no.", "'(?i)sorry' is in it"),
        ({"require": ["Paris"]}, "Paris" + "!" * 40, "one character"),
        ({}, "\ufffd", "broken characters"),
    ],
)
def test_a_reply_is_judged(changes: dict[str, Any], reply: str, problem: str) -> None:
    assert golden.wrong({**PROMPT, **changes}, reply, reply).startswith(problem)
    assert bool(golden.wrong({**PROMPT, **changes}, reply, reply)) == bool(problem)


def test_patterns_are_searched_in_thoughts_and_exact_is_the_answer_alone() -> None:
    assert golden.wrong({**PROMPT, "require": ["think"]}, "Paris", "I think\nParis") == ""
    assert golden.wrong({**PROMPT, "exact": "Paris"}, "Paris", "I think\nParis") == ""


@pytest.fixture
def port(does: Behaviour) -> Iterator[int]:
    with trial_server(does) as found:
        yield found


def test_a_server_is_asked_at_temperature_zero_past_its_cache(
    does: Behaviour, port: int, tmp_path: Path
) -> None:
    does.thoughts = "Paris, I think. "
    plan = instance_plan(tmp_path, port, golden=[{**PROMPT, "require": ["think", r"Paris\.$"]}])
    row = golden.golden(plan)
    assert (row["ok"], row["figure"], row["limit"]) == (True, "1 of 1", "1 of 1 replies")
    (_, body), *_ = does.asked
    assert (body["temperature"], body["cache_prompt"], body["max_tokens"]) == (0, False, 64)
    assert body["messages"] == [{"role": "user", "content": "Capital of France?"}]


def test_the_first_wrong_reply_is_shown(does: Behaviour, port: int, tmp_path: Path) -> None:
    prompts = [PROMPT, {**PROMPT, "exact": "Rome"}, PROMPT]
    row = golden.golden(instance_plan(tmp_path, port, golden=prompts))
    assert (row["ok"], row["figure"], row["limit"]) == (False, "1 of 3", "3 of 3 replies")
    assert row["detail"] == f"not exactly 'Rome': 'Capital of France?' was answered {REPLY!r}"
    assert len(does.asked) == 2


def test_a_silent_stream_is_found_out(
    does: Behaviour, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden, "SILENT_SECONDS", 0.2)
    does.hangs = ("/v1/chat/completions",)
    with pytest.raises(golden_error(), match=r"silent for 0\.2 s"):
        golden.golden(instance_plan(tmp_path, port, golden=[PROMPT]))


def golden_error() -> type[Exception]:
    found: type[Exception] = helper_module("system.commands").HostError
    return found


def test_a_prompt_with_an_image_is_asked_with_both() -> None:
    image = "data:image/png;base64,aGVsbG8="
    assert golden.content_of(PROMPT) == "Capital of France?"
    assert golden.content_of({**PROMPT, "image": None}) == "Capital of France?"
    shown, text = golden.content_of({**PROMPT, "image": image})
    assert shown == {"type": "image_url", "image_url": {"url": image}}
    assert text == {"type": "text", "text": "Capital of France?"}
