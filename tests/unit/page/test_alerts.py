"""Alerts of a Prometheus or an Alertmanager, and what is neither."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from corral.errors import CorralError
from corral.page.alerts import AlertSource

LABELS = {"alertname": "CorralDown", "host": "gpu-01", "instance": "glm-air", "severity": "page"}
NOTES = {"summary": "glm-air on gpu-01 does not answer", "command": "corral status gpu-01"}
PROMETHEUS = {"status": "success", "data": {"alerts": [
    {"labels": {**LABELS, "alertname": "B", "severity": "ticket"}, "annotations": {},
     "state": "firing", "activeAt": "2026-11-29T16:22:10Z", "value": "1"},
    {"labels": {**LABELS, "alertname": "A"}, "annotations": NOTES, "state": "pending"},
    {"labels": LABELS, "annotations": NOTES, "state": "firing", "activeAt": "2026-11-29T16:22:10Z"},
]}}  # fmt: skip
ALERTMANAGER = [
    {"labels": LABELS, "annotations": NOTES, "startsAt": "2026-11-29T16:22:10Z",
     "status": {"state": "active", "silencedBy": []}},
    {"labels": {**LABELS, "host": "gpu-02"}, "annotations": NOTES,
     "status": {"state": "suppressed"}},
]  # fmt: skip


class Answers:
    """Path -> status and body; others are not found."""

    def __init__(self) -> None:
        self.of: dict[str, tuple[int, bytes]] = {}
        self.url = ""

    def json(self, path: str, document: Any, status: int = 200) -> None:
        self.of[path] = (status, json.dumps(document).encode())


@pytest.fixture
def answers() -> Iterator[Answers]:
    found = Answers()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = found.of.get(self.path, (404, b"404 page not found"))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield found
    server.shutdown()
    server.server_close()


def test_a_prometheus_says_what_fires_and_pages_come_first(answers: Answers) -> None:
    answers.json("/api/v1/alerts", PROMETHEUS)
    first, second = AlertSource(f"{answers.url}/").firing()
    assert (first.name, first.severity, second.name) == ("CorralDown", "page", "B")
    assert (first.where, first.what) == ("gpu-01/glm-air", NOTES["summary"])
    assert first.command == "corral status gpu-01"
    assert first.since == "2026-11-29T16:22:10Z"


def test_an_alertmanager_leaves_out_what_is_silenced(answers: Answers) -> None:
    answers.json("/am/api/v2/alerts", ALERTMANAGER)
    (only,) = AlertSource(f"{answers.url}/am").firing()
    assert (only.where, only.since) == ("gpu-01/glm-air", "2026-11-29T16:22:10Z")


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"[[[", b'[{"labels": 7}]', b"\xff"])
def test_what_is_no_list_of_alerts_is_an_error(answers: Answers, body: bytes) -> None:
    answers.of["/api/v2/alerts"] = (200, body)
    with pytest.raises(CorralError, match="something else than alerts"):
        AlertSource(answers.url).firing()


def test_a_server_that_is_neither(answers: Answers) -> None:
    with pytest.raises(CorralError, match="neither a Prometheus nor an Alertmanager"):
        AlertSource(answers.url).firing()


def test_a_server_that_refuses(answers: Answers) -> None:
    answers.json("/api/v2/alerts", {}, 401)
    with pytest.raises(CorralError, match="answers 401"):
        AlertSource(answers.url).firing()


def test_nobody_there() -> None:
    with pytest.raises(CorralError, match="does not answer"):
        AlertSource("http://127.0.0.1:9").firing()


@pytest.mark.parametrize(
    "url", ["", "prometheus", "file:///etc/passwd", "http://", "http://a:x", "http://u:p@a", "//a",
            "http://a/?x", "http://a\x1b"]
)  # fmt: skip
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(CorralError, match=r"http://127\.0\.0\.1:9090"):
        AlertSource(url)
