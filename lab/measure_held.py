"""Build both engines with CUDA and measure what servers hold. Standard library alone.

    python3 lab/measure_held.py build FOLDER     # minutes; type it again after a time limit
    python3 lab/measure_held.py measure FOLDER --out OUT

Runs on a machine with GPUs, cmake, ninja and nvcc, without network and without Corral's packages.
FOLDER is written by ``python -m lab.held_settings`` and holds the engines' sources, headers of
models and settings.json: the arguments of each server and the memory that was predicted for it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import lzma
import os
import random
import re
import signal
import subprocess
import tarfile
import time
import urllib.request
from pathlib import Path
from typing import Any

WORK = Path("/tmp/held")  # noqa: S108 - a machine of one user
_BUILD_SECONDS, _READY_SECONDS, _ANSWER_SECONDS = 560, 150, 240
_PORT = 18080
_BUFFER = re.compile(r"(\S+) +(?:model |KV |compute |output )?buffer size *= *[0-9.]+ MiB")
_SIZES = re.compile(r"(\S+) +(KV|compute) buffer size *= *([0-9.]+) MiB")


def main() -> None:
    """Build or measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("step", choices=("build", "measure"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=WORK)
    given = parser.parse_args()
    settings = json.loads((given.folder / "settings.json").read_text())
    WORK.mkdir(exist_ok=True)
    if given.step == "build":
        build(given.folder, settings["engines"])
    else:
        measure(given.folder, settings["servers"], given.out)


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


def measure(folder: Path, servers: list[dict[str, Any]], out: Path) -> None:
    """Measure every server; rows are written as they come, and a failed one does not end it."""
    (WORK / "keys").write_text("measured\n")
    rows = []
    for server in servers:
        if server["gpus"] > gpu_count():
            print(f"{server['name']}: needs {server['gpus']} GPUs", flush=True)
            continue
        row = {key: server[key] for key in ("name", "engine", "gpus", "predicted_mib")}
        try:
            row |= one(folder, server)
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            row["error"] = f"{type(error).__name__}: {error}"
        rows.append(row)
        print(line(row), flush=True)
        (out / "held.json").write_text(json.dumps(rows, indent=1))
    print("\n".join(table(rows)), flush=True)


def one(folder: Path, server: dict[str, Any]) -> dict[str, Any]:
    """Start a server, send prompts as long as its context allows, and read what it holds."""
    path = WORK / f"{server['model']}.gguf"
    if not path.exists():
        path.write_bytes(lzma.decompress((folder / f"{server['model']}.xz").read_bytes()))
        os.truncate(path, server["file_bytes"])
    program = WORK / server["engine"] / "build" / "bin" / "llama-server"
    places = {"{model}": str(path), "{keys}": str(WORK / "keys"), "{program}": str(program)}
    argv = [places.get(word, word) for word in server["argv"]]
    visible = ",".join(str(n) for n in range(server["gpus"]))
    log = WORK / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*argv, *server["more_flags"]], stdout=output, stderr=output,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": visible, "GGML_NO_BACKTRACE": "1"},
        )  # fmt: skip
        try:
            started = time.monotonic()
            wait(process, log)
            found: dict[str, Any] = {"ready_seconds": round(time.monotonic() - started)}
            found["ready_mib"] = held(process.pid, server["gpus"])
            found["speeds"] = [ask(tokens) for tokens in server["prompts"]]
            found["held_mib"] = held(process.pid, server["gpus"])
            found["anonymous_mib"] = anonymous_mib(process.pid)
        finally:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            process.wait()
    text = log.read_text(errors="replace")
    found["buffers"] = [match.group(0) for match in _BUFFER.finditer(text)]
    if not server["gpus"]:
        # A program that runs on the CPU has no memory of a device: what its log counts.
        found["held_mib"] = [round(sum(float(mib) for _, _, mib in _SIZES.findall(text)))]
    return found


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


def gpu_count() -> int:
    """GPUs of this machine."""
    return len(smi("--query-gpu=index"))


def held(pid: int, gpus: int) -> list[int]:
    """MiB that a process holds on each GPU, by nvidia-smi."""
    order = smi("--query-gpu=uuid")
    found = dict.fromkeys(order, 0)
    for row in smi("--query-compute-apps=gpu_uuid,pid,used_memory"):
        uuid, owner, mib = (part.strip() for part in row.split(","))
        if int(owner) == pid:
            found[uuid] += int(mib)
    return [found[uuid] for uuid in order][:gpus]


def smi(query: str) -> list[str]:
    """Lines of nvidia-smi."""
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def anonymous_mib(pid: int) -> int:
    """Memory of a process that no file backs."""
    found = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found.group(1)) // 1024 if found else 0


def line(row: dict[str, Any]) -> str:
    """One row of Markdown."""
    if "error" in row:
        return f"| {row['engine']} | {row['name']} | failed: {row['error']} | | |"
    pairs = list(zip(row["predicted_mib"], row["held_mib"], strict=True))
    errors = ", ".join(f"{100 * (p / h - 1):+.1f}%" for p, h in pairs if h)
    both = [" + ".join(str(mib) for mib in row[key]) for key in ("predicted_mib", "held_mib")]
    return f"| {row['engine']} | {row['name']} | {both[0]} | {both[1]} | {errors} |"


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The table of docs/measurements."""
    head = "| engine | setting | predicted MiB | held MiB | error |"
    return [head, "| --- | --- | ---: | ---: | ---: |", *map(line, rows)]


if __name__ == "__main__":
    main()
