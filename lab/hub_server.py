"""The stand-in hub's HTTP: connections, headers and the access log."""

from __future__ import annotations

import json
import ssl
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TextIO
from urllib.parse import parse_qs, urlsplit

from pydantic import ValidationError

from lab.faults import Rule
from lab.hub_api import Answer, Request, refusal
from lab.hub_body import Span, UnsatisfiableRangeError, parse_range, read_span
from lab.hub_faults import CLOSES, FaultBook, fits, spoil
from lab.hub_store import StoredFile


class HubServer(ThreadingHTTPServer):
    """One listener: `answer` makes the answers, `faults` injects faults into them.

    It writes one line a request to `log`:
    ``METHOD PATH STATUS range=... bytes=BODY_BYTES_SENT auth=yes|no fault=...``
    + context: for https
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        *,
        answer: Callable[[Request], Answer],
        faults: FaultBook,
        log: TextIO,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.answer = answer
        self.faults = faults
        self.log = log
        super().__init__(address, _Handler)
        if context:
            # The handler does the handshake, so that a silent client does not block others.
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    def handle_error(self, request: object, client_address: object) -> None:
        """Write a traceback, except where a client went away: that is what clients do."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    # Seconds that an idle connection is kept.
    timeout = 60

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def log_message(self, *_: object) -> None:
        """Nothing: the access log has a line of its own, and an idle connection ends without one.

        The standard error that this would go to is that of whatever the process does meanwhile.
        """

    def _serve(self) -> None:
        self._status = 0
        self._body_bytes = 0
        rule = None
        request = self._request()
        try:
            answer = self.server.answer(request)
            rule = self._rule(request, answer)
            if rule is None or rule.kind != "down":
                self._send(spoil(answer, rule) if rule else answer, rule)
        except ValidationError as error:
            self._send(refusal(500, f"faults.json: {error}"), None)
        except ConnectionError:
            self.close_connection = True
        if rule and rule.kind in CLOSES:
            self.close_connection = True
        self._log(request, rule)

    def _request(self) -> Request:
        address = urlsplit(self.path)
        length = int(self.headers.get("Content-Length", "0"))
        form = parse_qs(self.rfile.read(length).decode())
        host = self.headers.get("Host", "")
        query, token = parse_qs(address.query), self.headers.get("Authorization", "")
        return Request(self.command, address.path, host, query, form, token)

    def _rule(self, request: Request, answer: Answer) -> Rule | None:
        return self.server.faults.take(
            request.path, lambda rule: fits(rule, request.method, answer)
        )

    def _send(self, answer: Answer, rule: Rule | None) -> None:
        headers = dict(answer.headers)
        if answer.commit is not None:
            headers["X-Repo-Commit"] = answer.commit
        if answer.linked_size_bytes is not None:
            headers.setdefault("X-Linked-Size", str(answer.linked_size_bytes))
        if answer.body is not None:
            self._send_body(answer.status, headers, answer.body)
            return
        if answer.file is not None:
            self._send_file(answer.file, headers, rule)
            return
        body = b"" if answer.document is None else json.dumps(answer.document).encode()
        headers["Content-Type"] = "application/json"
        self._send_head(answer.status, headers, len(body))
        if self.command != "HEAD":
            self._send_chunk(body)

    def _send_file(self, file: StoredFile, headers: dict[str, str], rule: Rule | None) -> None:
        headers |= {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        try:
            span = parse_range(self.headers.get("Range"), file.size_bytes)
        except UnsatisfiableRangeError:
            self._send_head(416, {"Content-Range": f"bytes */{file.size_bytes}"}, 0)
            return
        status = 200
        if span is not None:
            status = 206
            headers["Content-Range"] = f"bytes {span.start}-{span.end - 1}/{file.size_bytes}"
        span = span or Span(0, file.size_bytes)
        self._send_head(status, headers, span.end - span.start)
        if self.command != "HEAD":
            for chunk in read_span(file, span, rule):
                self._send_chunk(chunk)

    def _send_body(self, status: int, headers: dict[str, str], body: Iterator[bytes]) -> None:
        self._send_head(status, {**headers, "Connection": "close"}, None)
        if self.command != "HEAD":
            for chunk in body:
                self._send_chunk(chunk)

    def _send_head(self, status: int, headers: dict[str, str], length: int | None) -> None:
        self._status = status
        self.send_response(status)
        for name, value in headers.items():
            # An error's text may have line ends, which would end the header.
            self.send_header(name, " ".join(value.split()))
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def _send_chunk(self, chunk: bytes) -> None:
        self.wfile.write(chunk)
        self._body_bytes += len(chunk)

    def _log(self, request: Request, rule: Rule | None) -> None:
        fields = (
            request.method,
            request.path,
            str(self._status),
            f"range={self.headers.get('Range', '-')}",
            f"bytes={self._body_bytes}",
            f"auth={'yes' if 'Authorization' in self.headers else 'no'}",
            f"fault={rule.kind if rule else '-'}",
        )
        self.server.log.write(" ".join(fields) + "\n")
        self.server.log.flush()
