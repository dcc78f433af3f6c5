"""A server that dies of its first prompt leaves what was known of it until then."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lab.measure_servers import server

DIES = """
import http.server, json, os, signal, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"status": "ok"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        while not os.path.exists(sys.argv[2]):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGSEGV)

print("CUDA0 KV buffer size =   216.00 MiB", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_a_server_that_dies_leaves_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    def held(_pid: int, _gpus: int) -> list[int]:
        """More with each look; the server dies after the third."""
        looks.append(0)
        if len(looks) == 3:
            (tmp_path / "dies").touch()
        return [4320 + len(looks)]

    monkeypatch.setattr(server, "held", held)
    monkeypatch.setattr(server, "_LOOK_SECONDS", 0.01)
    asked = {
        "argv": [sys.executable, "-c", DIES, "{port}", str(tmp_path / "dies")],
        "more_flags": [],
        "gpus": 1,
        "prompts": [6],
        "answer_tokens": 1,
        "image_pixels": 0,
    }
    row: dict[str, Any] = {}
    with pytest.raises(ConnectionError):
        server.measure(asked, {}, {}, tmp_path / "log", time.monotonic() + 60, row)
    assert row["ready_mib"] == [4321]
    assert row["most_mib"][0] >= 4323
    assert row["exit_code"] == -signal.SIGSEGV
    assert row["buffers"] == ["CUDA0 KV buffer size =   216.00 MiB"]
    assert "held_mib" not in row
