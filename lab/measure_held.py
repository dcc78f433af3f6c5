"""Build engines with CUDA, and ask a server on this machine's GPUs. Standard library alone.

    python3 lab/measure_held.py build FOLDER     # minutes; type it again after a time limit

Runs on a machine with GPUs, cmake, ninja and nvcc, without network and without Corral's packages.
FOLDER holds the engines' sources and settings.json, which says how each is built. What servers of
both engines hold is measured by lab/measure_servers.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import tarfile
import time
import urllib.request
from pathlib import Path
from typing import Any

WORK = Path("/tmp/held")  # noqa: S108 - a machine of one user
_BUILD_SECONDS, _READY_SECONDS, _ANSWER_SECONDS = 560, 150, 240
_PORT = 18080


def main() -> None:
    """Build."""
    parser = argparse.ArgumentParser()
    parser.add_argument("step", choices=("build",))
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    settings = json.loads((given.folder / "settings.json").read_text())
    WORK.mkdir(exist_ok=True)
    build(given.folder, settings["engines"])


def build(folder: Path, engines: list[dict[str, Any]]) -> None:
    """Start the builds in a session of their own, and wait for them within the limit."""
    script = WORK / "build.sh"
    if not script.exists():
        lines = ["set -x"]
        for engine in engines:
            source = WORK / engine["name"]
            source.mkdir()
            with tarfile.open(folder / engine["archive"]) as archive:
                archive.extractall(source, filter="data")
            options = " ".join(f"'{option}'" for option in engine["cmake_options"])
            made = f"ninja -C {source}/build -j {os.cpu_count()} llama-server"
            lines += [f"cmake -S {source} -B {source}/build -G Ninja {options} && {made}", "date"]
        script.write_text("\n".join([*lines, f"touch {WORK}/built", ""]))
        with (WORK / "build.log").open("wb") as log:
            subprocess.Popen(["bash", script], stdout=log, stderr=log, start_new_session=True)
    deadline = time.monotonic() + _BUILD_SECONDS
    while not (WORK / "built").exists() and time.monotonic() < deadline:
        time.sleep(2)
    output = (WORK / "build.log").read_text(errors="replace")
    state = "built" if (WORK / "built").exists() else "not yet built, type it again"
    print(output[-1500:], f"\n{state}", flush=True)


def wait(process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the server is ready. Raises RuntimeError with the end of its log."""
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            if call("/health", None, seconds=5)["status"] == "ok":
                return
        time.sleep(0.5)
    raise RuntimeError(log.read_text(errors="replace")[-1500:])


def ask(tokens: int) -> list[float]:
    """Send a prompt of random tokens; its tokens/s and those of 32 answer tokens."""
    body = {
        "prompt": [random.randrange(1000, 50000) for _ in range(tokens)],  # noqa: S311
        "n_predict": 32, "ignore_eos": True, "cache_prompt": False, "temperature": 0,
    }  # fmt: skip
    timings = call("/completion", body, seconds=_ANSWER_SECONDS)["timings"]
    return [round(timings[key], 1) for key in ("prompt_per_second", "predicted_per_second")]


def call(path: str, body: dict[str, Any] | None, *, seconds: int) -> Any:
    """The server's answer."""
    request = urllib.request.Request(  # noqa: S310 - loopback
        f"http://127.0.0.1:{_PORT}{path}",
        data=json.dumps(body).encode() if body else None,
        headers={"Authorization": "Bearer measured", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310 - loopback
        return json.load(answer)


def smi(query: str) -> list[str]:
    """Lines of nvidia-smi."""
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


if __name__ == "__main__":
    main()
