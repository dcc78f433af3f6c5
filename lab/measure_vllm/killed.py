"""A rank of a server is killed: what its clients see, and how long until the server has ended."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

from lab.measure_vllm import gpus, server

_STREAM_TOKENS, _WAITING_TOKENS = 4000, 4000
_END_S, _FREE_S = 60.0, 20.0
_POLL_S = 0.1
_FREE_MIB = 1000


class _Waiting(threading.Thread):
    """A client that waits for a whole answer."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.found: tuple[int, str] = (0, "")
        self.ended = 0.0

    def run(self) -> None:
        body = server.completion("Hello", _WAITING_TOKENS)
        self.found = server.answer("/v1/completions", body, server.KEYS[0])
        self.ended = time.monotonic()


def kill_rank(current: server.Server) -> dict[str, Any]:
    """Kill the process on the last GPU while one client reads a stream and one waits."""
    stream, waiting = server.Stream(_STREAM_TOKENS), _Waiting()
    stream.start()
    waiting.start()
    stream.begun.wait(60)
    time.sleep(1)
    victim = max(gpus.processes(), key=lambda process: process["gpu"])
    before = stream.events
    killed = time.monotonic()
    os.kill(victim["pid"], signal.SIGKILL)
    found: dict[str, Any] = {"killed": victim["name"], "health": _follow(current, killed)}
    # The code of the API server, before anything else is ended.
    found["exit_code"] = current.process.poll()
    found["ended_after_s"] = found["health"][-1][0] if found["exit_code"] is not None else None
    stream.join(10)
    waiting.join(10)
    found["stream"] = {
        "events_before": before,
        "events": stream.events,
        "whole": stream.whole,
        "error": stream.error,
        "last_line": stream.last_line,
        "ended_after_s": _since(killed, stream.ended),
    }
    status, body = waiting.found
    found["waiting"] = {
        "status": status,
        "body": body[:300],
        "ended_after_s": _since(killed, waiting.ended),
    }
    return found | _left(killed)


def _follow(current: server.Server, killed: float) -> list[tuple[float, int]]:
    """Seconds and status of /health each time that it changes; last the end of the API server."""
    changes: list[tuple[float, int]] = []
    while time.monotonic() < killed + _END_S and current.process.poll() is None:
        status = server.status("/health")
        if not changes or changes[-1][1] != status:
            changes.append((_since(killed, time.monotonic()), status))
        time.sleep(_POLL_S)
    return [*changes, (_since(killed, time.monotonic()), 0)]


def _left(killed: float) -> dict[str, Any]:
    """Processes that stay on the GPUs without their API server, and when the memory is free."""
    found: dict[str, Any] = {"left_on_gpus": [process["name"] for process in gpus.processes()]}
    until = time.monotonic() + _FREE_S
    while time.monotonic() < until:
        if max(used for used, _ in gpus.memory_mib()) < _FREE_MIB:
            return found | {"free_after_s": _since(killed, time.monotonic())}
        time.sleep(_POLL_S)
    return found


def _since(begun: float, at: float) -> float:
    return round(at - begun, 2)
