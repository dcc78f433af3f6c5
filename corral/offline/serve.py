"""`corral bundle serve`: a bundle over HTTP, read-only, for hosts that reach nothing else."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO

from corral_shared.text import printable_line

from corral.errors import CorralError
from corral.files import make_folder, write_atomic
from corral.offline.routes import Answer, Routes
from corral.offline.verify import Opened
from corral.paths import default_headers_folder

Report = Callable[[str], None]
_RANGE = re.compile(r"bytes=([0-9]{1,18})-([0-9]{0,18})")
_CHUNK_BYTES = 1024**2
# A host that does not read: its connection ends.
_SILENT_SECONDS = 300
_MOST_HEADER_BYTES = 16 * 1024**2


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: str, port: int, routes: Routes, report: Report) -> None:
        self.routes, self.report = routes, report
        if ip_address(address).version == 6:
            self.address_family = socket.AF_INET6
        super().__init__((address, port), _Handler)

    def handle_error(self, *_: Any) -> None:
        """A host that hung up is no fault of this server."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "corral-bundle", ""
    timeout = _SILENT_SECONDS
    server: _Server

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        answer = self.server.routes.answer(self.path)
        if answer.served is None:
            self._page(answer, with_body=with_body)
            return
        size = answer.served.file.size_bytes
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        start, end = _span(asked, size)
        if asked and (start >= size or end <= start):
            self._head(416, answer, {"Content-Range": f"bytes */{size}", "Content-Length": "0"})
            return
        span = {"Content-Range": f"bytes {start}-{end - 1}/{size}"} if asked else {}
        try:
            file = answer.served.bundle.path(answer.served.file.name).open("rb")
        except OSError as error:
            why = f"{answer.served.file.name}: {error.strerror}\n".encode()
            self._page(Answer(500, why, "text/plain"), with_body=with_body)
            return
        with file:
            length = {"Content-Length": str(end - start)}
            self._head(206 if asked else 200, answer, {**span, **length})
            if with_body:
                self._send(file, start, end)

    def _head(self, status: int, answer: Answer, more: dict[str, str]) -> None:
        self.send_response(status)
        headers = {"Content-Type": answer.content_type, "Accept-Ranges": "bytes"}
        for name, value in {**headers, **answer.headers, **more}.items():
            self.send_header(name, value)
        self.end_headers()

    def _page(self, answer: Answer, *, with_body: bool) -> None:
        self._head(answer.status, answer, {"Content-Length": str(len(answer.text))})
        if with_body:
            self.wfile.write(answer.text)

    def _send(self, file: BinaryIO, start: int, end: int) -> None:
        file.seek(start)
        left = end - start
        while left:
            block = file.read(min(left, _CHUNK_BYTES))
            if not block:
                # Shorter than its head said: the host sees that the answer was cut.
                self.close_connection = True
                return
            self.wfile.write(block)
            left -= len(block)

    def log_request(self, code: int | str = "-", _size: int | str = "-") -> None:
        status = getattr(code, "value", code)
        line = f"{self.client_address[0]} {self.command} {self.path} {status}"
        self.server.report(printable_line(line))

    def log_message(self, *_: object) -> None:
        """Requests alone are reported."""


def _span(asked: re.Match[str] | None, size: int) -> tuple[int, int]:
    """First byte, and that after the last."""
    if asked is None:
        return 0, size
    return int(asked[1]), min(int(asked[2]) + 1, size) if asked[2] else size


@contextmanager
def serving(address: str, port: int, routes: Routes, report: Report) -> Iterator[str]:
    """Serve until the block ends; yields the URL. Raises CorralError.

    + port: 0 for a free one
    """
    try:
        server = _Server(address, port, routes, report)
    except OSError as error:
        what = f"cannot be served on: {error.strerror}"
        step = "name an address of this controller and a free port: --address ADDRESS --port PORT"
        raise CorralError(f"{address}:{port}", what, step) from error
    with server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1})
        thread.start()
        try:
            host = f"[{address}]" if ":" in address else address
            yield f"http://{host}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def take_headers(opened: Opened) -> int:
    """Copy headers of a proved bundle to the cache of this controller; returns how many are new."""
    folder, step = default_headers_folder(), "free disk space there"
    make_folder(folder, next_step=step)
    count = 0
    for file in opened.bundle.of("headers"):
        target = folder / Path(file.name).name
        if not target.exists() and file.size_bytes <= _MOST_HEADER_BYTES:
            write_atomic(target, opened.path(file.name).read_bytes(), next_step=step)
            count += 1
    return count
