"""A server that says it is healthy and then hangs costs one timeout, not one for each check."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module

check = helper_module("checks.verify")
server = helper_module("server.http")
probe_client = helper_module("server.probe_client")
probes = helper_module("checks.server_probes")


class _Hanging(BaseHTTPRequestHandler):
    """Answers /health, and nothing else until the test ends."""

    over = threading.Event()
    asked: list[str] = []  # noqa: RUF012 - of the one server of this module

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path != "/health":
            self.over.wait()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status": "ok"}')

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hanging) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield listening.server_address[1]
        _Hanging.over.set()
        listening.shutdown()


def test_the_rest_is_not_asked(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = server.connection
    for module in (server, probe_client):
        monkeypatch.setattr(module, "connection", lambda instance, _: quick(instance, 0.2))
    monkeypatch.setattr(probes, "first_key", lambda _: None)
    instance: dict[str, Any] = {
        "endpoint": {"socket": None, "address": "127.0.0.1", "port": port},
        "unit": "corral-none.service", "metrics": True, "uses_gpu": False, "alias": "m",
        "keyed_routes": ["POST /completion"],
    }  # fmt: skip
    rows = {row["check"]: row for row in check.check_instance(instance)}
    assert rows["health"]["ok"]
    assert rows["model"]["detail"] == "no answer in time"
    for name in ("slots", "completion", "stream", "keys", "metrics"):
        assert rows[name]["detail"] == "not asked: no answer in time"
        assert not rows[name]["ok"]
    assert _Hanging.asked == ["/health", "/v1/models"]
