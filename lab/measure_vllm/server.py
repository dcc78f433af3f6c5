"""One vLLM server: started, asked, and stopped."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from lab.measure_vllm.settings import Setting

KEYS = ("measure-key-number-one", "measure-key-number-two")
PORT = 18000


class Server:
    """A server process, and its log."""

    def __init__(
        self,
        setting: Setting,
        folder: Path,
        *,
        writable_code: bool,
        extra: list[str],
        port: int = PORT,
        gpu: int | None = None,
    ) -> None:
        self.setting = setting
        self.port = port
        self.log = folder / "logs" / f"{setting.name}.log"
        self.log.parent.mkdir(exist_ok=True)
        home = folder / f"home-{setting.user_id or 0}"
        home.mkdir(exist_ok=True)
        if setting.user_id:
            os.chown(home, setting.user_id, setting.user_id)
        options = ["--imported-before"] if setting.imported_before else []
        options += ["--writable-code"] if writable_code else []
        options += ["--user", str(setting.user_id)] if setting.user_id else []
        serve = ["serve", str(folder / setting.model), *setting.arguments(), *extra]
        serve += ["--load-format", "dummy", "--served-model-name", "measured"]
        serve += ["--host", "127.0.0.1", "--port", str(port), "--shutdown-timeout", "30"]
        serve += ["--config", str(_key_file(folder))]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lab.measure_vllm.start", *options, "--", *serve],
            stdin=subprocess.PIPE,
            stdout=self.log.open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={
                **os.environ,
                "HOME": str(home),
                "TMPDIR": str(home),
                "HF_HUB_OFFLINE": "1",
                "VLLM_NO_USAGE_STATS": "1",
                # As systemd sets it: torch asks for the user's name.
                "LOGNAME": "measured",
                "VLLM_LOGGING_LEVEL": "DEBUG",
                "PYTHONDONTWRITEBYTECODE": "" if not setting.user_id else "1",
                **setting.environment(),
                **({} if gpu is None else {"CUDA_VISIBLE_DEVICES": str(gpu)}),
            },
        )

    def go(self) -> float:
        """Let a process that waits after its imports go on; returns the time now."""
        if self.setting.imported_before and self.process.stdin:
            self.process.stdin.write(b"go\n")
            self.process.stdin.flush()
        return time.monotonic()

    def wait_until_ready(self, deadline: float) -> bool:
        """Whether it answered a completion before the deadline."""
        while time.monotonic() < deadline and self.process.poll() is None:
            if complete("Hello", 2, port=self.port) == 200:
                return True
            time.sleep(0.2)
        return False

    def terminate(self, limit_s: float) -> tuple[float, int | None]:
        """SIGTERM to the API server, as systemd's KillMode=mixed does; seconds and exit code."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(limit_s)
        return time.monotonic() - begun, self.process.poll()

    def kill(self) -> None:
        """End whatever is left of its session."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.wait(30)


def _key_file(folder: Path) -> Path:
    path = folder / "vllm.yaml"
    path.write_text("".join(["api-key:\n", *(f"  - {key}\n" for key in KEYS)]))
    path.chmod(0o644)
    return path


def _request(
    path: str, body: dict[str, Any] | None, key: str | None, port: int
) -> urllib.request.Request:
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    data = json.dumps(body).encode() if body else None
    url = f"http://127.0.0.1:{port}{path}"
    return urllib.request.Request(url, data=data, headers=headers)  # noqa: S310 - loopback


def status(
    path: str, body: dict[str, Any] | None = None, key: str | None = None, *, port: int = PORT
) -> int:
    """The HTTP status of an answer; 0 without one."""
    return answer(path, body, key, port=port)[0]


def answer(
    path: str, body: dict[str, Any] | None = None, key: str | None = None, *, port: int = PORT
) -> tuple[int, str]:
    """The HTTP status and the text of an answer; 0 and the reason without one."""
    try:
        with urllib.request.urlopen(_request(path, body, key, port), timeout=90) as found:  # noqa: S310
            return int(found.status), found.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, repr(error)


def text(path: str) -> str:
    """The body of an open route."""
    return answer(path)[1]


def complete(
    prompt: str | list[int], tokens: int, key: str | None = KEYS[0], *, port: int = PORT
) -> int:
    """The HTTP status of a completion of so many tokens."""
    return status("/v1/completions", completion(prompt, tokens), key, port=port)


def completion(prompt: str | list[int], tokens: int) -> dict[str, Any]:
    """The body of a request for exactly so many tokens."""
    return {
        "model": "measured",
        "prompt": prompt,
        "max_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0,
    }


class Stream(threading.Thread):
    """A streamed completion, read until it ends."""

    def __init__(self, tokens: int) -> None:
        super().__init__(daemon=True)
        self.tokens = tokens
        self.begun = threading.Event()
        self.events = 0
        self.whole = False
        self.error = ""
        self.last_line = ""
        self.ended = 0.0

    def run(self) -> None:
        """Read events until [DONE] or the end of the connection."""
        body = {**completion("Hello", self.tokens), "stream": True}
        try:
            request = _request("/v1/completions", body, KEYS[0], PORT)
            with urllib.request.urlopen(request, timeout=90) as answer:  # noqa: S310 - loopback
                for line in answer:
                    self.events += line.startswith(b"data: {")
                    self.whole = self.whole or line.strip() == b"data: [DONE]"
                    self.last_line = line.decode(errors="replace").strip()[:300] or self.last_line
                    if self.events:
                        self.begun.set()
        except (OSError, http.client.HTTPException) as error:
            self.error = repr(error)
        self.ended = time.monotonic()
