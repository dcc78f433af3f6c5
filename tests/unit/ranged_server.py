"""A web server for the first bytes of files that are far larger, and for its faults."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from corral.fit.headers import ShardSource

_CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True)
class Served:
    """A file: ``content`` and then zeros up to ``total_bytes``.

    Faults: another ``status``, no ``ranges``, another ``content_range``, ``most_bytes`` of a body,
    ``extra_bytes`` after it.
    """

    content: bytes
    total_bytes: int | None = None
    status: int = 206
    ranges: bool = True
    content_range: str | None = None
    most_bytes: int | None = None
    extra_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        """As given; else room for one block of a tensor after the header."""
        return len(self.content) + 18 if self.total_bytes is None else self.total_bytes


@dataclass
class RangedServer:
    """``sent_bytes`` counts bodies only; ``requests`` are ``NAME RANGE``."""

    url: str = ""
    sent_bytes: int = 0
    files: dict[str, Served] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def add(self, name: str, served: Served) -> ShardSource:
        """Serve a file; its digest is made up from its name and content."""
        self.files[name] = served
        digest = hashlib.sha256(name.encode() + served.content).hexdigest()
        return ShardSource(f"{self.url}/{name}", digest, served.size_bytes)


@contextlib.contextmanager
def serving() -> Iterator[RangedServer]:
    state = RangedServer()

    class Handler(_Handler):
        served = state

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    served: RangedServer

    def log_message(self, *_: object) -> None:
        """Nothing: `requests` is the log."""

    def do_GET(self) -> None:
        name = self.path.removeprefix("/")
        file = self.served.files[name]
        asked = self.headers["Range"] or f"bytes=0-{file.size_bytes}"
        self.served.requests.append(f"{name} {asked}")
        start, *last = (int(number) for number in re.findall(r"\d+", asked))
        end = min(last[0] + 1, file.size_bytes) if last else file.size_bytes
        if not file.ranges:
            start, end = 0, file.size_bytes
        self._head(file, start, end)
        if file.most_bytes is not None:
            end = min(end, start + file.most_bytes)
        end += file.extra_bytes
        with contextlib.suppress(ConnectionError):
            self._body(file, start, end)

    def _head(self, file: Served, start: int, end: int) -> None:
        self.send_response(file.status if file.ranges else 200)
        if file.content_range is not None:
            self.send_header("Content-Range", file.content_range)
        elif file.ranges:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{file.size_bytes}")
        if file.most_bytes is None:
            self.send_header("Content-Length", str(end - start + file.extra_bytes))
        self.end_headers()

    def _body(self, file: Served, start: int, end: int) -> None:
        for position in range(start, end, _CHUNK_BYTES):
            length = min(_CHUNK_BYTES, end - position)
            chunk = file.content[position : position + length]
            self.wfile.write(chunk + bytes(length - len(chunk)))
            self.served.sent_bytes += length
