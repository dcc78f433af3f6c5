"""A hub that answers what no hub should: each time one message, in bounded memory and time."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from corral.errors import CorralError
from corral.fit.ranges import ShardSource, fetch_headers, read_gguf
from corral.sources import hub as asking
from corral.sources import hub_requests
from lab import hub
from lab.faults import Rule, faults
from tests.unit.plain_server import COMMIT, FILE, serving, tiny
from tests.unit.running_hub import RESOLVE, WHOLE, RunningHub

pytestmark = pytest.mark.slow

API = "/api/models/*"


def refusal(running: RunningHub, *rules: Rule, **changes: Any) -> CorralError:
    with faults(running.root, *rules), pytest.raises(CorralError) as caught:
        asking.describe("tiny", tiny(**changes), running.url)
    assert caught.value.where.startswith("catalog/models/tiny.toml")
    assert len(str(caught.value)) < 4000
    return caught.value


def test_a_network_that_wants_a_login_first_is_told_as_one(running: RunningHub) -> None:
    error = refusal(running, Rule(match=API, kind="html"))
    assert "with a web page" in error.what


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "7", "[]", '"x"', "{", "{}", "[" * 100_000, "9" * 5000, '{"sha": "\\ud800"}',
        json.dumps({"sha": None, "siblings": []}),
        json.dumps({"siblings": [FILE]}),
        json.dumps({"sha": "main", "siblings": [FILE]}),
        json.dumps({"sha": COMMIT[:39], "siblings": [FILE]}),
        json.dumps({"sha": COMMIT.upper(), "siblings": [FILE]}),
        json.dumps({"sha": COMMIT}),
        json.dumps({"sha": COMMIT, "siblings": None}),
        json.dumps({"sha": COMMIT, "siblings": {"x": 1}}),
        json.dumps({"sha": COMMIT, "siblings": [7] * 10_000}),
        json.dumps({"sha": COMMIT, "siblings": [{"rfilename": None}]}),
        json.dumps({"sha": COMMIT, "siblings": [{**FILE, "lfs": [1]}]}),
    ],
)  # fmt: skip
def test_an_answer_of_another_shape_is_refused(running: RunningHub, text: str) -> None:
    refusal(running, Rule(match=API, kind="text", text=text))


@pytest.mark.parametrize("body", [b"[]", b"null", b'{"error": 7, "errors": 7}', b"\xff", b"[" * 99])
def test_an_error_of_another_shape_is_refused(body: bytes) -> None:
    with serving(body, status=400) as url, pytest.raises(CorralError) as caught:
        asking.describe("tiny", tiny(), url)
    assert caught.value.where.startswith("catalog/models/tiny.toml")


@pytest.mark.parametrize(
    ("code", "seconds", "said", "step"),
    [
        (
            429,
            "300",
            "answers 429: it limits how often",
            "wait 300 seconds, then run `corral lock`",
        ),
        (429, "Fri, 1 Jan", "answers 429: it limits how often", "wait some minutes, then"),
        (503, "", "answers 503: it is busy or faulty", "wait some minutes, then"),
        (418, "", "answers 418", "check hub_url"),
    ],
)
def test_a_hub_that_answers_with_an_error_is_not_called_silent(
    code: int, seconds: str, said: str, step: str
) -> None:
    headers = {"Retry-After": seconds} if seconds else {}
    with serving(b"{}", status=code, headers=headers) as url:
        with pytest.raises(CorralError) as caught:
            asking.describe("tiny", tiny(), url)
        if code != 418:
            with pytest.raises(CorralError) as other:
                asking.content(tiny(), url, COMMIT, "x.json", where="catalog/models/tiny.toml")
            assert other.value.what == caught.value.what
    assert said in caught.value.what
    assert "does not answer" not in caught.value.what
    assert step in caught.value.next_step


def test_another_commit_than_the_one_asked_for_is_refused(running: RunningHub) -> None:
    commit = running.api.model_info(hub.REPOSITORY).sha
    assert asking.describe("tiny", tiny(revision=commit), running.url).sha == commit
    error = refusal(running, Rule(match=API, kind="wrong_commit"), revision=commit)
    assert error.where.endswith("revision")


def test_an_answer_without_end_is_read_no_further_than_the_limit(
    running: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "MOST_BYTES", 4 * 1024**2)
    tracemalloc.start()
    error = refusal(running, Rule(match=API, kind="endless"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "more than 4 MiB" in error.what
    assert peak < 32 * 1024**2


def test_a_compressed_answer_is_not_unpacked(running: RunningHub) -> None:
    tracemalloc.start()
    error = refusal(running, Rule(match=API, kind="bomb", size_bytes=256 * 1024**2))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "compressed" in error.what
    assert peak < 32 * 1024**2


def test_an_answer_that_drips_ends(running: RunningHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "MOST_SECONDS", 0)
    assert "no end after 0 s" in refusal(running, Rule(match=API, kind="endless")).what


def endless() -> Iterator[bytes]:
    while True:
        yield b" " * 1024**2


def test_the_body_of_a_redirect_is_not_read() -> None:
    def answered(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/there":
            return httpx2.Response(200, content=iter([b"here"]))
        return httpx2.Response(302, headers={"Location": "/there"}, content=endless())

    with (
        httpx2.Client(transport=httpx2.MockTransport(answered)) as client,
        hub_requests.answer(client, "http://hub.example.com/x", {}) as response,
    ):
        assert hub_requests.read_body(response, most_bytes=9, most_seconds=9) == b"here"


def test_redirects_in_a_circle_end() -> None:
    location = {"Location": "/again"}
    with serving(b"", status=302, headers=location) as url, pytest.raises(CorralError) as caught:
        asking.describe("tiny", tiny(), url)
    assert "redirects" in caught.value.what


@pytest.mark.parametrize("kind", ["html", "endless"])
def test_a_header_that_is_no_header_is_refused(running: RunningHub, kind: Any) -> None:
    shard = ShardSource(f"{running.url}{RESOLVE}/{WHOLE}", "a" * 64, len(running.content))
    with faults(running.root, Rule(match="*.gguf", kind=kind)), pytest.raises(CorralError):
        fetch_headers([shard], read_gguf)


def test_a_range_of_many_digits_is_refused() -> None:
    said = {"Content-Range": f"bytes 0-{'9' * 5000}/{'9' * 5000}"}
    with serving(b"x" * 10, status=206, headers=said) as url, pytest.raises(CorralError):
        fetch_headers([ShardSource(f"{url}/x.gguf", "a" * 64, 10)], read_gguf)
