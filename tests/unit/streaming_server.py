"""A server of streamed completions on loopback, with the faults that servers and networks have."""

from __future__ import annotations

import contextlib
import json
import socketserver
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KEY = "a-key-of-more-than-twenty-characters"
ALIAS = "tiny"


@dataclass
class StreamingServer:
    """What it does with the next requests, in their order: ``plan``; then all is well.

    + wait: event before an answer's first token; + requests: their bodies
    + most: most requests that were in flight at the same time
    """

    url: str = ""
    alias: str = ALIAS
    plan: list[str] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    first_seconds: float = 0.0
    each_seconds: float = 0.0
    hung_up: threading.Event = field(default_factory=threading.Event)
    in_flight: int = 0
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next_fault(self) -> str:
        with self.lock:
            return self.plan.pop(0) if self.plan else ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: StreamingServer

    def do_GET(self) -> None:
        models = {"object": "list", "data": [{"id": self.state.alias, "object": "model"}]}
        self.whole(200 if self.is_known() else 401, models)

    def do_POST(self) -> None:
        state = self.state
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.is_known():
            self.whole(401, {"error": {"message": "Invalid API Key"}})
            return
        with state.lock:
            state.requests.append(body)
            state.in_flight += 1
            state.most = max(state.most, state.in_flight)
        try:
            self.complete(body, state.next_fault())
        except OSError:
            state.hung_up.set()
        finally:
            with state.lock:
                state.in_flight -= 1

    def complete(self, body: dict[str, Any], fault: str) -> None:
        state, number = self.state, body["max_tokens"]
        if fault == "refuse":
            self.whole(503, {"error": {"message": "Loading model", "code": 503}})
            return
        if fault == "vanish":
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if fault == "hang":
            while not state.released.wait(0.02):
                self.chunk(": still at work\n\n")
        time.sleep(state.first_seconds)
        ended = number - 2 if fault == "early" else number
        for token in range(ended):
            if fault in ("cut", "end") and token == number // 2:
                if fault == "end":
                    self.chunk("")
                else:
                    self.close_connection = True
                return
            if fault == "garbage" and token == 1:
                self.chunk("data: {nonsense\n\n")
            if token:
                time.sleep(state.each_seconds)
            self.event({"choices": [{"index": 0, "text": "x", "finish_reason": None}]})
        usage = {"prompt_tokens": len(body["prompt"]), "completion_tokens": ended}
        last = {"index": 0, "text": "", "finish_reason": "length"}
        self.event({"choices": [last], **({} if fault == "uncounted" else {"usage": usage})})
        self.chunk("data: [DONE]\n\n")
        self.chunk("")

    def event(self, document: dict[str, Any]) -> None:
        self.chunk(f"data: {json.dumps({'id': 'x', 'object': 'text_completion', **document})}\n\n")

    def chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def whole(self, status: int, document: dict[str, Any]) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def is_known(self) -> bool:
        shown = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.state.keys.append(shown)
        return shown == KEY

    def log_message(self, *_: object) -> None:
        pass


class _Tcp(ThreadingHTTPServer):
    request_queue_size = 1024


class _Unix(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


@contextlib.contextmanager
def streaming(socket: Path | None = None) -> Iterator[StreamingServer]:
    """Serve on a port, or on a unix socket."""
    state = StreamingServer()

    class Handler(_Handler):
        pass

    Handler.state = state
    if socket:
        server: socketserver.BaseServer = _Unix(str(socket), Handler)
        state.url = "http://localhost"
    else:
        tcp = _Tcp(("127.0.0.1", 0), Handler)
        state.url, server = f"http://127.0.0.1:{tcp.server_port}", tcp
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
