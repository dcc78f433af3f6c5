"""The echo server: the chat API of OpenAI, and nothing behind it but what was said."""

from __future__ import annotations

import argparse
import http.server
import json
import socketserver
import threading
import time
from pathlib import Path
from typing import Any

VERSION = "1.0"
IN_FLIGHT = [0]
LOCK = threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    """GET /health is open; all else needs a key."""

    protocol_version = "HTTP/1.1"
    settings: argparse.Namespace
    keys: frozenset[str]

    def do_GET(self) -> None:
        """What it serves, and how much of it."""
        models = {"data": [{"id": self.settings.name, "object": "model"}], "object": "list"}
        if self.path == "/health":
            self.answer(200, '{"status": "ok"}')
        elif not self.is_known():
            self.answer(401, "{}")
        elif self.path == "/v1/models":
            self.answer(200, json.dumps(models))
        elif self.path == "/metrics":
            self.answer(200, f"echo_in_flight {IN_FLIGHT[0]}\n")
        else:
            self.answer(404, "{}")

    def do_POST(self) -> None:
        """A completion: the last message once more.

        "wait N" takes N seconds first, "until PATH" as long as there is no such file.
        """
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        if not self.is_known():
            self.answer(401, "{}")
            return
        with LOCK:
            IN_FLIGHT[0] += 1
        try:
            self.complete(body)
        finally:
            with LOCK:
                IN_FLIGHT[0] -= 1

    def complete(self, body: dict[str, Any]) -> None:
        """Whole, or as a stream of its words."""
        said = body["messages"][-1]["content"]
        if said.startswith("wait "):
            time.sleep(float(said.split()[1]))
        while said.startswith("until ") and not Path(said.split()[1]).exists():
            time.sleep(0.05)
        words = f"You said: {said}".split()[: body.get("max_tokens", 100)]
        if not body.get("stream"):
            self.answer(200, json.dumps(self.choice("message", " ".join(words), len(words))))
            return
        pieces = [words[0], *(f" {word}" for word in words[1:])]
        parts = [json.dumps(self.choice("delta", piece, 1)) for piece in pieces]
        events = "".join(f"data: {part}\n\n" for part in [*parts, "[DONE]"])
        self.answer(200, events, "text/event-stream")

    def choice(self, where: str, text: str, tokens: int) -> dict[str, Any]:
        """A part of an answer."""
        part = {"role": "assistant", "content": text}
        return {
            "model": self.settings.name,
            "choices": [{"index": 0, where: part, "finish_reason": "stop"}],
            "usage": {"completion_tokens": tokens},
        }

    def is_known(self) -> bool:
        """Whether the request has one of the keys."""
        return self.headers.get("Authorization", "").removeprefix("Bearer ") in self.keys

    def answer(self, status: int, text: str, kind: str = "application/json") -> None:
        """The whole answer."""
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """No prompts in the journal."""


class Server(http.server.ThreadingHTTPServer):
    """Names of hosts are not looked up."""

    def server_bind(self) -> None:
        """As socketserver does it."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]


def main() -> None:
    """Serve until it is ended."""
    parser = argparse.ArgumentParser("echo_engine")
    parser.add_argument("--version", action="version", version=f"%(prog)s {VERSION}")
    for flag in ("--weights", "--name", "--keys"):
        parser.add_argument(flag, required=True)
    parser.add_argument("--listen", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--context", type=int)
    parser.add_argument("--slots", type=int)
    Handler.settings = parser.parse_args()
    Path(Handler.settings.weights).stat()
    lines = Path(Handler.settings.keys).read_text().splitlines()
    Handler.keys = frozenset(line for line in lines if line and not line.startswith("#"))
    Server((Handler.settings.listen, Handler.settings.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
