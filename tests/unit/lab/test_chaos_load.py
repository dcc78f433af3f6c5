"""The load counts every request that was not answered to its end, and says how it failed."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Semaphore, Thread

import pytest

from lab.chaos import load
from lab.chaos.tally import Outcome, Reply, read
from tests.ports import free_port
from tests.samples import ROOT

pytestmark = pytest.mark.slow

KEY = "a-key-of-more-than-twenty-characters"
Answer = Callable[["Server"], None]


class Server(BaseHTTPRequestHandler):
    """Answers as its class attribute says."""

    protocol_version = "HTTP/1.1"
    answer: Answer

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).answer(self)

    def begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()

    def piece(self, text: str | None, finish: str | None = None) -> None:
        delta = {"content": text} if text else {}
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        chunk = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "tiny"}
        self.event(json.dumps({**chunk, "choices": [choice]}))

    def event(self, data: str) -> None:
        self.wfile.write(f"data: {data}\n\n".encode())

    def log_message(self, *_: object) -> None:
        pass


def whole(server: Server) -> None:
    server.begin()
    server.piece("a")
    server.piece("b")
    server.piece(None, "length")
    server.event("[DONE]")
    server.close_connection = True


def stops_in_silence(server: Server) -> None:
    server.begin()
    server.piece("a")
    server.close_connection = True


def says_nothing(server: Server) -> None:
    server.begin()
    server.piece(None, "stop")
    server.event("[DONE]")
    server.close_connection = True


def is_cut(server: Server) -> None:
    server.send_response(200)
    server.send_header("Content-Type", "text/event-stream")
    server.send_header("Transfer-Encoding", "chunked")
    server.end_headers()
    server.wfile.write(b"40\r\ndata: ")
    server.close_connection = True


def hangs_up(server: Server) -> None:
    server.connection.shutdown(socket.SHUT_RDWR)
    server.close_connection = True


def is_loading(server: Server) -> None:
    server.send_error(503)


def hangs(server: Server) -> None:
    server.begin()
    server.piece("a")
    # Until the client gives up.
    server.connection.recv(1)
    server.close_connection = True


def fails_inside(server: Server) -> None:
    server.begin()
    server.event('{"error": {"message": "out of memory", "code": 500}}')
    server.close_connection = True


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    handler = type("Handler", (Server,), {"answer": staticmethod(answer)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def asked(url: str) -> Reply:
    client = load.client(url, KEY)
    return asyncio.run(load.ask(client, model="tiny", prompt="Hello", tokens=8))


@pytest.mark.parametrize(
    ("answer", "outcome", "words"),
    [
        (stops_in_silence, Outcome.CUT, "after 1 pieces"),
        (says_nothing, Outcome.CUT, "after 0 pieces"),
        (is_cut, Outcome.CUT, "RemoteProtocolError"),
        (hangs_up, Outcome.CUT, "RemoteProtocolError"),
        (is_loading, Outcome.STATUS, "503"),
        (hangs, Outcome.TIMEOUT, "1 pieces"),
        (fails_inside, Outcome.ERROR, "out of memory"),
    ],
)
def test_a_request_that_is_not_answered_to_its_end_has_failed(
    answer: Answer, outcome: Outcome, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if answer is hangs:
        monkeypatch.setattr(load, "TIMEOUT_SECONDS", 3)
    with serving(answer) as url:
        reply = asked(url)
    assert (reply.outcome, words in reply.detail) == (outcome, True), reply


def test_a_whole_reply_is_good_and_its_times_are_in_order() -> None:
    with serving(whole) as url:
        reply = asked(url)
    assert (reply.outcome, reply.pieces, reply.reused) == (Outcome.GOOD, 2, False)
    assert reply.first_token_seconds is not None
    assert reply.began_seconds < reply.first_token_seconds < reply.ended_seconds


def test_a_port_on_which_nobody_listens_refuses() -> None:
    assert asked(f"http://127.0.0.1:{free_port()}").outcome is Outcome.REFUSED


def test_requests_begin_while_others_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other there would be a single one at a time."""
    monkeypatch.setattr(load, "TIMEOUT_SECONDS", 2)
    out, four_hang, hanging = io.StringIO(), Event(), Semaphore(3)

    def hangs_with_others(server: Server) -> None:
        with_three = not hanging.acquire(blocking=False)
        if with_three:
            four_hang.set()
        hangs(server)
        if not with_three:
            hanging.release()

    async def until_four_hang(url: str) -> None:
        stop = asyncio.Event()
        clients = [load.client(url, KEY) for _ in range(2)]
        running = asyncio.create_task(load.Load(clients, model="tiny", tokens=8).run(20, stop, out))
        await asyncio.to_thread(four_hang.wait, 20)
        stop.set()
        await running

    with serving(hangs_with_others) as url:
        asyncio.run(until_four_hang(url))
    assert four_hang.is_set()
    replies = [json.loads(line) for line in out.getvalue().splitlines()]
    assert {reply["outcome"] for reply in replies} == {"timeout"}


def test_a_line_that_is_being_written_is_left_for_later(tmp_path: Path) -> None:
    with serving(whole) as url:
        reply = asked(url)
    line = json.dumps(asdict(reply))
    (tmp_path / "out").write_text(f"{line}\n{line[:20]}")
    assert read(tmp_path / "out") == [reply]


def test_a_load_ends_with_whoever_began_it(tmp_path: Path) -> None:
    """Which is killed here once requests are made: the pipe that only the load has left closes."""
    (tmp_path / "key").write_text(f"{KEY}\n")
    words = ["--url", "http://127.0.0.1:1", "--model", "tiny", "--key-file", str(tmp_path / "key")]
    load_words = [sys.executable, "-m", "lab.chaos.load", *words, "--out", str(tmp_path / "out")]
    begin = f"import subprocess; subprocess.run({load_words!r})"
    with subprocess.Popen(
        [sys.executable, "-c", begin], cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True
    ) as parent:
        try:
            while not (tmp_path / "out").exists() or not (tmp_path / "out").read_text():
                assert parent.poll() is None
                time.sleep(0.05)
            parent.kill()
            assert parent.communicate(timeout=120)[0] == b""
        finally:
            with suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)
