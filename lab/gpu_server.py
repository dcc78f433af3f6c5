"""A llama-server on this machine's GPU, started with the arguments that a deploy would use."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from corral.catalog.profile import Profile
from corral.engines import engine_module
from corral.engines.flag_table import Settings
from corral.plan.instance import Endpoint
from corral.plan.placement import ResolvedPlacement

_KEY = "measured"
_READY_SECONDS = 120
PROMPT_TOKENS, ANSWER_TOKENS = 1024, 64
_ENDPOINT = Endpoint(address="127.0.0.1", port=18080)


@contextmanager
def serving(
    profile: Profile, placement: ResolvedPlacement, *, programs: Path, model: Path, folder: Path
) -> Iterator[int]:
    """Run a server until the block ends; yields its pid once it is ready.

    ``folder``: for its key file and log.
    """
    keys = folder / "keys"
    keys.write_text(f"{_KEY}\n")
    argv = engine_module("llama.cpp").argv(
        str(programs / "llama-server"),
        Settings(
            profile=profile,
            model=str(model),
            alias="measured",
            endpoint=_ENDPOINT,
            key_file=str(keys),
            placement=placement,
            chat_template_file=None,
        ),
    )
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            _wait(server, folder / "server.log")
            yield server.pid
        finally:
            server.kill()
            server.wait()


def _wait(server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if _call("/health", None)["status"] == "ok":
                return
        except OSError:
            time.sleep(0.3)
    raise click.ClickException(log.read_text()[-2000:])


def ask() -> tuple[float, float]:
    """Send a new prompt; returns tokens/s of the prompt and of the answer."""
    numbers = [1000 + (n * 37 + time.monotonic_ns()) % 50000 for n in range(PROMPT_TOKENS)]
    body = {
        "prompt": numbers,
        "n_predict": ANSWER_TOKENS,
        "ignore_eos": True,
        "cache_prompt": False,
        "temperature": 0,
    }
    timings = _call("/completion", body)["timings"]
    return timings["prompt_per_second"], timings["predicted_per_second"]


def _call(path: str, body: dict[str, Any] | None) -> Any:
    """The server's answer to a keyed request."""
    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{_ENDPOINT.url}{path}",
        data=json.dumps(body).encode() if body else None,
        headers={"Authorization": f"Bearer {_KEY}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310 - loopback
        return json.load(answer)


def vram_mib(pid: int) -> int:
    """GPU memory that a process holds, by nvidia-smi."""
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    pairs = (line.split(",") for line in lines)
    return sum(int(used) for owner, used in pairs if int(owner) == pid)
