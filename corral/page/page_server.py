"""Serves the newest page to browsers: reading only, of memory only, on one address."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from corral.errors import CorralError
from corral.page.html import policy

_READS = ("GET", "HEAD")
# A browser uses six connections; more at once are not of people.
_MOST_AT_ONCE = 32
_SECONDS = 10


@dataclass(frozen=True)
class Address:
    """Where a page is served."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def text(self) -> str:
        """As in an URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address_of(text: str, *, exposed: bool) -> Address:
    """Parse ADDRESS:PORT or PORT. Raises CorralError.

    + exposed: the operator allows an address that other machines reach
    """
    host, _, port = text.rpartition(":")
    step = "give one such as 127.0.0.1:8090"
    try:
        found = Address(str(ipaddress.ip_address(host.strip("[]") or "127.0.0.1")), int(port))
    except ValueError as error:
        raise CorralError(f"--serve {text}", "is no ADDRESS:PORT with numbers", step) from error
    if not port.isascii() or not 0 <= found.port < 65536:
        raise CorralError(f"--serve {text}", "has no port between 0 and 65535", step)
    if not found.is_loopback and not exposed:
        what = "is reached by other machines, and the page has no password"
        raise CorralError(f"--serve {text}", what, f"{step}, or add --exposed")
    return found


class PageServer:
    """Answers GET / with the newest page, and nothing else."""

    def __init__(self, address: Address) -> None:
        self._shown = (b"", "default-src 'none'")
        self._slots = threading.BoundedSemaphore(_MOST_AT_ONCE)
        try:
            self._server = _server_class(address)((address.host, address.port), self._handler())
        except OSError as error:
            step = "choose another port, or end what listens there"
            raise CorralError(address.text, f"cannot be served: {error.strerror}", step) from error
        self.address = Address(address.host, self._server.server_address[1])

    def show(self, html: str) -> None:
        """Replace the page."""
        # Both at once: a browser would refuse a page under the policy of another one.
        self._shown = (html.encode(), policy(html))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serve until the block ends."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()

    def _is_ours(self, named: str) -> bool:
        """Whether a browser meant this server: a name that was pointed here is of another site."""
        if not self.address.is_loopback:
            return True
        return named in (self.address.text, f"localhost:{self.address.port}")

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        page = self

        class Handler(BaseHTTPRequestHandler):
            timeout = _SECONDS
            server_version, sys_version = "corral", ""

            def do_GET(self) -> None:
                with page._slots:
                    self._answer()

            do_HEAD = do_GET  # noqa: N815 - the name that it is called by

            def send_error(
                self,
                code: int,
                message: str | None = None,  # noqa: ARG002 - what was asked is not repeated
                explain: str | None = None,  # noqa: ARG002
            ) -> None:
                refused = code == HTTPStatus.NOT_IMPLEMENTED
                self._send(HTTPStatus.METHOD_NOT_ALLOWED if refused else HTTPStatus(code))

            def log_message(self, *_: Any) -> None:
                """Print nothing: the terminal may show a table."""

            def _answer(self) -> None:
                shown, policy = page._shown
                if not page._is_ours(self.headers.get("Host", "")):
                    self._send(HTTPStatus.MISDIRECTED_REQUEST)
                elif self.path != "/":
                    self._send(HTTPStatus.NOT_FOUND)
                elif not shown:
                    self._send(HTTPStatus.SERVICE_UNAVAILABLE, b"The hosts are being asked.\n")
                else:
                    self._send(HTTPStatus.OK, shown, policy)

            def _send(
                self, status: HTTPStatus, body: bytes = b"", policy: str = "default-src 'none'"
            ) -> None:
                body = body or f"{status.phrase}\n".encode()
                kind = "text/html" if status == HTTPStatus.OK else "text/plain"
                self.send_response(status)
                for name, value in {
                    "Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body)),
                    "Content-Security-Policy": policy,
                    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
                    "Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin",
                    "Connection": "close",
                }.items():  # fmt: skip
                    self.send_header(name, value)
                if status == HTTPStatus.METHOD_NOT_ALLOWED:
                    self.send_header("Allow", ", ".join(_READS))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)
                self.close_connection = True

        return Handler


def _server_class(address: Address) -> type[ThreadingHTTPServer]:
    class Server(ThreadingHTTPServer):
        daemon_threads = True
        address_family = socket.AF_INET6 if ":" in address.host else socket.AF_INET

        def handle_error(self, *_: Any) -> None:
            """A browser that closes its tab ends a connection; nothing follows from it."""

    return Server
