"""Verify's checks of a gateway, as one of its clients."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module

pytestmark = pytest.mark.slow

OURS, SERVERS = b'{"error": {"message": "No such route."}}', b'{"error": "File Not Found"}'
CLOSED = [["GET", "/v1/stream"], ["DELETE", "/v1/stream"], ["POST", "/models/unload"]]


@contextmanager
def gateway(folder: Path, answers: dict[str, tuple[int, bytes]]) -> Iterator[tuple[Any, list[str]]]:
    """A stand-in that answers like a gateway, except on some routes; returns its plan."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            assert self.headers["Authorization"] == "Bearer a-client"
            asked.append(self.requestline.rpartition(" ")[0])
            status, body = answers.get(asked[-1], (404, OURS))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = do  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            pass

    (folder / "current").mkdir()
    (folder / "current/clients-small").write_text("a-client\nanother\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        pool = {"name": "small", "alias": "small", "port": server.server_port, "closed": CLOSED}
        plan = {"folder": str(folder), "address": "0.0.0.0", "tls": False}
        try:
            yield (plan, pool), asked
        finally:
            server.shutdown()


def test_closed_routes_are_asked_with_a_clients_key(tmp_path: Path) -> None:
    check = helper_module("gateway.probes")
    with gateway(tmp_path, {}) as (given, asked):
        assert check.routes(*given) == (True, "7 routes are closed")
    assert {f"{method} {path}" for method, path in CLOSED} < set(asked)
    assert {"GET //v1/models", "GET /v1/%6dodels"} < set(asked)


@pytest.mark.parametrize("answer", [(200, b"{}"), (404, SERVERS), (401, b""), (500, b"")])
def test_a_route_that_a_server_answers_is_open_whatever_it_says(
    tmp_path: Path, answer: tuple[int, bytes]
) -> None:
    check = helper_module("gateway.probes")
    with gateway(tmp_path, {"DELETE /v1/stream": answer}) as (given, _):
        assert check.routes(*given) == (False, "clients reach DELETE /v1/stream")


def test_nothing_is_changed_by_asking_a_gateway_that_is_open(tmp_path: Path) -> None:
    check = helper_module("gateway.probes")
    with gateway(tmp_path, {"GET /v1/stream": (200, b"{}")}) as (given, asked):
        assert check.routes(*given) == (False, "clients reach GET /v1/stream")
    assert all(one.startswith("GET ") for one in asked)
