"""The faults that the stand-in hub can show."""

from __future__ import annotations

import http.client
import json
import time

import pytest
from huggingface_hub.errors import (
    HfHubHTTPError,
)
from pydantic import ValidationError

from lab import hub
from lab.faults import FILE_NAME, Rule, faults
from lab.hub_faults import WRONG_COMMIT
from tests.unit.running_hub import RESOLVE, WHOLE, RunningHub

pytestmark = pytest.mark.slow


def test_cut_closes_the_connection_in_the_body(running: RunningHub) -> None:
    rule = Rule(match="/cdn/*", kind="cut", after_bytes=1000, times=1)
    with faults(running.root, rule):
        location = running.signed()
        with pytest.raises(http.client.IncompleteRead) as caught:
            running.get(location)
        assert caught.value.partial == running.content[:1000]
        assert running.get(location).body == running.content


def test_flip_inverts_one_bit_of_the_file_in_any_range(running: RunningHub) -> None:
    with faults(running.root, Rule(match="*.gguf", kind="flip", offset_bytes=70_000)):
        location = running.signed()
        whole = running.get(location).body
        part = running.get(location, Range="bytes=70000-70000").body
    differing = [index for index, byte in enumerate(running.content) if whole[index] != byte]
    assert differing == [70_000]
    assert part == whole[70_000:70_001]


def test_short_serves_less_with_headers_to_match(running: RunningHub) -> None:
    with faults(running.root, Rule(match="*.gguf", kind="short", size_bytes=500)):
        redirect = running.get(f"{RESOLVE}/{WHOLE}", "HEAD")
        assert redirect.headers["X-Linked-Size"] == "500"
        reply = running.get(redirect.headers["Location"], Range="bytes=400-")
    assert reply.body == running.content[400:500]
    assert reply.headers["Content-Range"] == "bytes 400-499/500"


def test_wrong_commit_is_named_by_headers_and_by_the_api(running: RunningHub) -> None:
    with faults(running.root, Rule(match="*", kind="wrong_commit")):
        assert running.api.model_info(hub.REPOSITORY).sha == WRONG_COMMIT
        headers = running.get(f"{RESOLVE}/{WHOLE}", "HEAD").headers
        assert headers["X-Repo-Commit"] == WRONG_COMMIT
    assert running.api.model_info(hub.REPOSITORY).sha != WRONG_COMMIT


@pytest.mark.parametrize("code", [403, 429, 503])
def test_status_answers_so_as_often_as_asked(running: RunningHub, code: int) -> None:
    rule = Rule.model_validate({"match": "*README.md", "kind": "status", "code": code, "times": 2})
    with faults(running.root, rule):
        replies = [running.get(f"{RESOLVE}/README.md") for _ in range(3)]
    assert [reply.status for reply in replies] == [code, code, 200]
    assert replies[0].headers["Retry-After"] == "1"


def test_a_rule_counts_anew_for_every_block(running: RunningHub) -> None:
    for _ in range(2):
        with faults(running.root, Rule(match="*", kind="status", code=503, times=1)):
            assert running.get(f"{RESOLVE}/README.md").status == 503


def test_slow_keeps_to_the_pace(running: RunningHub) -> None:
    with faults(running.root, Rule(match="/cdn/*", kind="slow", bytes_per_second=10_000)):
        location = running.signed()
        start_seconds = time.monotonic()
        running.get(location, Range="bytes=0-4999")
        elapsed_seconds = time.monotonic() - start_seconds
    assert elapsed_seconds > 0.4


def test_down_closes_the_connection_without_an_answer(running: RunningHub) -> None:
    with (
        faults(running.root, Rule(match="*", kind="down")),
        pytest.raises(http.client.RemoteDisconnected),
    ):
        running.get(f"{RESOLVE}/README.md")
    assert running.logged(1)[0].endswith(" 0 range=- bytes=0 auth=no fault=down")


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "cut"},
        {"kind": "down", "after_bytes": 1},
        {"kind": "status", "code": 418},
        {"kind": "flop"},
        {"kind": "down", "tmies": 1},
    ],
)
def test_a_mistake_in_a_rule_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Rule.model_validate({"match": "*", **fields})


def test_a_mistake_in_the_fault_file_is_answered_with_its_text(running: RunningHub) -> None:
    path = running.root / FILE_NAME
    path.write_text(json.dumps([{"match": "*", "kind": "flop"}]))
    try:
        with pytest.raises(HfHubHTTPError, match="flop"):
            running.api.model_info(hub.REPOSITORY)
    finally:
        path.unlink()
