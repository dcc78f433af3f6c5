"""A server that starts like vLLM with dummy weights: it logs, listens on a socket, answers or dies.

Usage: fake_vllm.py LOG KEYS SOCKET BEHAVIOUR. LOG is printed first; KEYS is the file of --config.
BEHAVIOUR: answers; dies, with code 1 after its log; loads, without an end; or unwell: /health
answers 200 and a request 500. It runs on hosts too, so it needs Python 3.9 alone.
"""

from __future__ import annotations

import http.server
import json
import os
import socketserver
import sys
import threading
from pathlib import Path


class Handler(http.server.BaseHTTPRequestHandler):
    """GET /health, and completions with a key."""

    keys: list[str] = []  # noqa: RUF012
    status = 200

    def do_GET(self) -> None:
        """Health needs no key."""
        self.answer(200, "")

    def do_POST(self) -> None:
        """One token."""
        self.rfile.read(int(self.headers["Content-Length"]))
        key = self.headers.get("Authorization", "").partition("Bearer ")[2]
        text = json.dumps({"choices": [{"message": {"content": "x"}, "finish_reason": "length"}]})
        self.answer(self.status if key in self.keys else 401, text)

    def answer(self, status: int, text: str) -> None:
        """The whole answer."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        # A client of an empty answer may be gone by now, which a write of nothing reports too.
        if text:
            self.wfile.write(text.encode())

    def address_string(self) -> str:
        """The client of a unix socket has no address."""
        return ""

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """HTTP over a unix socket."""


def main() -> None:
    """Log, then behave."""
    log, keys, path, behaviour = sys.argv[1:]
    Handler.keys = json.loads(Path(keys).read_text())["api-key"]
    print(Path(log).read_text(), flush=True)
    print(f"HOME={os.environ['HOME']}", flush=True)
    if behaviour == "dies":
        sys.exit(1)
    if behaviour == "loads":
        threading.Event().wait()
    Handler.status = 500 if behaviour == "unwell" else 200
    # A runtime folder of a unit is new at each start; a test's is not.
    if Path(path).exists():
        Path(path).unlink()
    Server(path, Handler).serve_forever()


if __name__ == "__main__":
    main()
