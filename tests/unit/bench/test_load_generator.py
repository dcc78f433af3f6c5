"""Load tests against a real server of streams, with its failures, cut streams and delays."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.bench.load.completions import Target
from corral.bench.load.figures import LoadRun
from corral.bench.load.generator import first_answer, measure
from corral.engines.load import LoadCase
from corral.errors import CorralError
from tests.unit.streaming_server import ALIAS, KEY, StreamingServer, streaming

pytestmark = pytest.mark.slow

TOKENS = tuple(range(100, 200))
FIELDS = {"ignore_eos": True, "cache_prompt": False}


@pytest.fixture
def server() -> Iterator[StreamingServer]:
    with streaming() as found:
        yield found


def target(server: StreamingServer, **changes: str) -> Target:
    given = {"url": server.url, "key": KEY, "alias": ALIAS, **changes}
    return Target(fields=FIELDS, **given)


def case(number: int, **changes: object) -> LoadCase:
    values = {"input_tokens": 12, "output_tokens": 6, "num_prompts": number, **changes}
    return LoadCase.model_validate(values)


def run(server: StreamingServer, case: LoadCase, limit_seconds: float = 60) -> LoadRun:
    return measure(
        target(server), case, TOKENS, limit_seconds=limit_seconds, print_line=lambda _: None
    ).run


def test_every_request_is_sent_as_it_should_be(server: StreamingServer) -> None:
    found = run(server, case(20))
    assert (found.completed, found.failed, found.ended_early) == (20, 0, 0)
    assert (found.total_input_tokens, found.total_output_tokens) == (240, 120)
    assert len(server.requests) == 20
    for body in server.requests:
        assert len(body["prompt"]) == 12
        assert set(body["prompt"]) <= set(TOKENS)
        assert (body["max_tokens"], body["model"], body["stream"]) == (6, ALIAS, True)
        assert (body["ignore_eos"], body["cache_prompt"]) == (True, False)
        assert body["stream_options"] == {"include_usage": True}
    assert len({tuple(body["prompt"]) for body in server.requests}) == 20
    # Sampling is the profile's, as for all users.
    assert not {"temperature", "top_p"} & {key for body in server.requests for key in body}


def test_delays_are_where_they_belong(server: StreamingServer) -> None:
    server.first_seconds, server.each_seconds = 0.3, 0.05
    found = run(server, case(3))
    # At least what the server waits: a busy machine adds to it.
    assert (found.median_ttft_ms or 0) >= 300
    assert (found.mean_e2el_ms or 0) >= 550
    assert found.mean_tpot_ms == pytest.approx(found.mean_itl_ms)
    assert found.mean_e2el_ms == pytest.approx(
        (found.mean_ttft_ms or 0) + 5 * (found.mean_tpot_ms or 0)
    )


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("refuse", "HTTP 503: Loading model"),
        ("vanish", "RemoteProtocolError: Server disconnected without sending a response."),
        ("cut", "RemoteProtocolError: peer closed connection without sending complete message"),
        ("end", "the stream was cut"),
        ("garbage", "JSONDecodeError"),
        ("uncounted", "the answer does not count its tokens"),
    ],
)
def test_what_fails_is_counted_with_its_reason(
    server: StreamingServer, fault: str, reason: str
) -> None:
    server.plan = [fault, fault]
    found = run(server, case(5, max_concurrency=1))
    assert (found.completed, found.failed) == (3, 2)
    ((text, number),) = found.failures.items()
    assert number == 2
    assert text.startswith(reason)
    assert found.total_output_tokens == 18
    # Nothing is sent twice.
    assert len(server.requests) == 5


def test_an_answer_that_ends_early_is_counted(server: StreamingServer) -> None:
    server.plan = ["early"]
    found = run(server, case(3))
    assert (found.completed, found.failed, found.ended_early) == (3, 0, 1)
    assert found.total_output_tokens == 16


def test_a_server_that_is_gone_fails_every_request() -> None:
    with streaming() as gone:
        pass
    found = run(gone, case(3))
    assert found.failed == 3
    assert all("ConnectError" in reason for reason in found.failures)


def test_it_ends_by_itself_and_hangs_up(server: StreamingServer) -> None:
    server.plan = ["", "hang"]
    found = run(server, case(2, max_concurrency=1), limit_seconds=1)
    assert (found.completed, found.failed) == (1, 1)
    assert found.failures == {"not answered within 1 s": 1}
    assert server.hung_up.wait(120)


def test_so_many_requests_are_in_flight_and_no_more(server: StreamingServer) -> None:
    server.first_seconds = 0.05
    run(server, case(12, max_concurrency=3))
    assert server.most == 3
    run(server, case(12, max_concurrency=1))
    assert server.most == 3


def test_many_requests_are_in_flight_at_once(
    server: StreamingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.plan = ["hang"] * 120
    monkeypatch.setattr("corral.bench.load.generator._PROGRESS_SECONDS", 0.2)

    def interrupt(_: str) -> None:
        if server.in_flight == 120:
            raise KeyboardInterrupt

    # Ends at once when all are in flight, and after ten minutes where they never are.
    with pytest.raises(KeyboardInterrupt):
        measure(target(server), case(120), TOKENS, limit_seconds=600, print_line=interrupt)


def test_an_interrupted_one_closes_its_connections(
    server: StreamingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.plan = ["hang"] * 3
    monkeypatch.setattr("corral.bench.load.generator._PROGRESS_SECONDS", 0.2)

    def interrupt(_: str) -> None:
        if server.in_flight == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(target(server), case(3), TOKENS, limit_seconds=60, print_line=interrupt)
    assert server.hung_up.wait(120)


def test_a_unix_socket_works_as_well(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with streaming(path) as server:
        reached = target(server, socket=str(path))
        assert first_answer(reached, TOKENS, where="node-1/chat", next_step="see") > 0
        found = measure(reached, case(4), TOKENS, limit_seconds=60, print_line=lambda _: None)
    assert found.run.completed == 4


def test_a_proxy_of_the_environment_gets_no_key(
    server: StreamingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with streaming() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        assert run(server, case(2)).completed == 2
        assert proxy.keys == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"key": "another-key-of-twenty-characters"}, "does not answer (HTTP 401"),
        ({"alias": "large"}, "another model answers there (tiny)"),
        ({"url": "http://127.0.0.1:1"}, "does not answer (ConnectError"),
    ],
)
def test_what_cannot_be_tested_is_refused_before_the_first_prompt(
    server: StreamingServer, changes: dict[str, str], what: str
) -> None:
    with pytest.raises(CorralError) as error:
        first_answer(target(server, **changes), TOKENS, where="node-1/chat", next_step="see")
    assert str(error.value).startswith("node-1/chat: ")
    assert what in str(error.value)
    assert error.value.next_step == "see"
    assert server.requests == []


def test_a_first_completion_that_fails_is_told(server: StreamingServer) -> None:
    server.plan = ["refuse"]
    with pytest.raises(CorralError, match="first completion failed .HTTP 503: Loading model"):
        first_answer(target(server), TOKENS, where="node-1/chat", next_step="see")


def test_a_mistake_of_ours_is_no_failed_request(
    server: StreamingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        await asyncio.sleep(0)
        raise AssertionError("ours")

    monkeypatch.setattr("corral.bench.load.generator.complete", broken)
    with pytest.raises(AssertionError, match="ours"):
        run(server, case(2))
