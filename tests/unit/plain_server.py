"""A hub that says one thing to everybody, over http or https, and keeps what it was sent."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from corral.catalog.entries import Model
from lab import hub

COMMIT = "b" * 40
LFS = {"size": 1, "sha256": "a" * 64, "pointerSize": 1}
FILE = {"rfilename": "x.gguf", "size": 1, "lfs": LFS}
ANSWER = json.dumps({"sha": COMMIT, "siblings": [FILE]}).encode()

# What was sent with each request to `serving`.
Seen = list[dict[str, str]]


@contextmanager
def serving(
    body: bytes,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
    seen: Seen | None = None,
    context: ssl.SSLContext | None = None,
) -> Iterator[str]:
    """A server that says the same to everybody; gives its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            if seen is not None:
                seen.append({key.lower(): value for key, value in self.headers.items()})
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            if "Content-Length" not in (headers or {}):
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("localhost", 0), Handler)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"{'https' if context else 'http'}://localhost:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def tiny(**changes: Any) -> Model:
    quants = {"Q8_0": {"files": "*Q8_0.gguf"}}
    data = {"repo": hub.REPOSITORY, "train_context_tokens": 8192, "quants": quants, **changes}
    return Model.model_validate(data)
