"""A server on trial: it answers like llama-server, or goes wrong in one of the known ways."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.unit.helper_modules import helper_module

KEY = "sk-trial"
REPLY = "The capital of France is Paris."
ROUTES = ("GET /props", "POST /v1/chat/completions", "POST /completion", "POST /tokenize")
# What systemd shows of a server that runs since its first start.
RUNS = {
    "ActiveState": "active", "SubState": "running", "InvocationID": "1", "Result": "success",
    "ExecMainStatus": "0",
}  # fmt: skip


@dataclass
class Behaviour:
    """What the server does.

    + hangs: paths that it never answers; + trickles: one byte every 50 ms; + half: of a stream
    + opens: paths that need no key; + generation, prompt: tokens/s, the next for each request
    """

    reply: str = REPLY
    thoughts: str = ""
    status: int = 200
    health: int = 200
    hangs: tuple[str, ...] = ()
    trickles: bool = False
    half: bool = False
    opens: tuple[str, ...] = ()
    body: str | None = None
    cached_tokens: int = 0
    prompt: Iterator[float] = field(default_factory=lambda: itertools.repeat(1000.0))
    generation: Iterator[float] = field(default_factory=lambda: itertools.repeat(50.0))
    over: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, Any]] = field(default_factory=list)


@contextmanager
def trial_server(behaviour: Behaviour) -> Iterator[int]:
    """Run it; gives its port. It is no unit: who listens is not asked."""
    with (
        patch.object(helper_module("server.listener"), "refuse_stranger", lambda *_: None),
        ThreadingHTTPServer(("127.0.0.1", 0), _handler(behaviour)) as listening,
    ):
        threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
        yield listening.server_address[1]
        behaviour.over.set()
        listening.shutdown()


def instance_plan(folder: Path, port: int, **gate: Any) -> dict[str, Any]:
    """An InstancePlan as the helper has it; ``gate``: what its plan asks for."""
    (folder / "keys").write_text(f"# of a client\n{KEY}\n")
    return {
        "name": "chat", "unit": "corral-chat.service", "folder": str(folder), "alias": "m",
        "generation": "g1", "profile": "p", "gpus": [0, 1], "key_path": str(folder / "keys"),
        "endpoint": {"socket": None, "address": "127.0.0.1", "port": port},
        "keyed_routes": list(ROUTES), "uses_gpu": False, "ready_timeout_seconds": 5,
        "gate": {"golden": [], "speed": None, "perplexity": None, "soak_seconds": 0, **gate},
    }  # fmt: skip


def _handler(does: Behaviour) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(None)

        def do_POST(self) -> None:
            self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def answer(self, body: Any) -> None:
            does.asked.append((self.path, body))
            keyed = self.headers["Authorization"] == f"Bearer {KEY}"
            if self.path != "/health" and not keyed and self.path not in does.opens:
                self.tell(401, "{}")
            elif self.path in does.hangs:
                does.over.wait()
            elif body and body.get("stream"):
                self.stream()
            else:
                text = json.dumps(_answer(does, self.path, body))
                status = does.health if self.path == "/health" else does.status
                self.tell(status, text if does.body is None else does.body)

        def tell(self, status: int, text: str) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            for byte in text.encode() if does.trickles else ():
                if does.over.wait(0.05):
                    return
                self.wfile.write(bytes([byte]))
            if not does.trickles:
                self.wfile.write(text.encode())

        def stream(self) -> None:
            self.send_response(200)
            self.end_headers()
            deltas = [{"role": "assistant", "content": None}]
            deltas += [{"reasoning_content": c} for c in does.thoughts]
            deltas += [{"content": c} for c in does.reply]
            for delta in deltas[: len(deltas) // 2] if does.half else deltas:
                self.event(json.dumps({"choices": [{"delta": delta}]}))
            if not does.half:
                self.event("[DONE]")

        def event(self, text: str) -> None:
            self.wfile.write(f"data: {text}\n\n".encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


def _answer(does: Behaviour, path: str, body: Any) -> Any:
    if path == "/tokenize":
        return {"tokens": list(range(2 * len(body["content"].split())))}
    if path == "/completion":
        speeds = {
            "prompt_per_second": next(does.prompt),
            "predicted_per_second": next(does.generation),
        }
        return {"timings": {"prompt_n": len(body["prompt"]) - does.cached_tokens, **speeds}}
    return {"choices": [{"message": {"content": does.reply, "reasoning_content": does.thoughts}}]}
