"""One server: started with a deploy's arguments, asked, and what it holds on each GPU."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import time
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from corral.remote.repeating import repeated

_READY_SECONDS, _ANSWER_SECONDS, _END_SECONDS, _EXIT_SECONDS = 150, 300, 15, 2
_LOOK_SECONDS = 0.5
_SHOWN = 1500
# What a server says of how its GPUs add their results.
_REDUCES, _MOST_LINES = re.compile(r".*(?:NCCL|AllReduce).*"), 4
_BUFFER = re.compile(r"(\S+) +(?:model |KV |RS |compute |output )?buffer size *= *[0-9.]+ MiB")


def measure(
    server: dict[str, Any],
    places: dict[str, str],
    environment: dict[str, str],
    log: Path,
    until: float,
    found: dict[str, Any],
) -> None:
    """Start a server, send its prompts, and read what it holds after them.

    + places: of the programs and files that its arguments name
    + until: of time.monotonic(), when all must have ended
    + found: gets each figure as soon as it is known, so that a server that dies leaves the others
    Raises OSError, RuntimeError, KeyError or ValueError.
    """
    # A port of its own: that of a server that has just ended cannot be bound for a minute.
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    argv = [_filled(word, {**places, "{port}": str(port)}) for word in server["argv"]]
    visible = ",".join(str(n) for n in range(server["gpus"]))
    with _running([*argv, *server["more_flags"]], log, environment, visible, found) as process:
        started = time.monotonic()
        _wait(process, url, log, min(until, started + _READY_SECONDS))
        found["ready_seconds"] = round(time.monotonic() - started, 1)
        found["ready_mib"] = held(process.pid, server["gpus"])
        with _watched(process.pid, server["gpus"], found):
            found["speeds"] = [
                _ask(url, tokens, server["answer_tokens"], until) for tokens in server["prompts"]
            ]
        if server["image_pixels"]:
            found["image_tokens"] = _show(url, server["image_pixels"], until)
        found["held_mib"] = held(process.pid, server["gpus"])
        found["anonymous_mib"] = _anonymous_mib(process.pid)
        found["seconds"] = round(time.monotonic() - started, 1)


@contextlib.contextmanager
def _watched(pid: int, gpus: int, found: dict[str, Any]) -> Iterator[None]:
    """Keep the most that it holds meanwhile, which a server that dies of its answer leaves too."""
    found["most_mib"] = [0] * gpus

    def look() -> None:
        now = held(pid, gpus)
        found["most_mib"] = [max(pair) for pair in zip(found["most_mib"], now, strict=True)]

    with repeated(look, seconds=_LOOK_SECONDS):
        yield


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        return int(bound.getsockname()[1])


def _filled(word: str, places: dict[str, str]) -> str:
    for name, path in places.items():
        word = word.replace(name, path)
    return word


@contextlib.contextmanager
def _running(
    argv: list[str], log: Path, environment: dict[str, str], visible: str, found: dict[str, Any]
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, stdout=output, stderr=output,
            env={**os.environ, **environment, "CUDA_VISIBLE_DEVICES": visible},
        )  # fmt: skip
        try:
            yield process
        except Exception:
            # Of a server that ended by itself, such as -11; it may not have been waited for yet.
            with contextlib.suppress(subprocess.TimeoutExpired):
                found["exit_code"] = process.wait(_EXIT_SECONDS)
            raise
        finally:
            text = log.read_text(errors="replace")
            found["reduces"] = _REDUCES.findall(text)[:_MOST_LINES]
            found["buffers"] = [match.group(0) for match in _BUFFER.finditer(text)]
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path, until: float) -> None:
    """Until the server is ready. Raises RuntimeError with the end of its log."""
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            if _call(f"{url}/health", None, seconds=5)["status"] == "ok":
                return
        time.sleep(0.2)
    why = "not ready in time" if process.poll() is None else f"exit {process.returncode}"
    raise RuntimeError(f"{why}: {log.read_text(errors='replace')[-_SHOWN:]}")


def _ask(url: str, tokens: int, answer_tokens: int, until: float) -> list[float]:
    """Send a prompt of random tokens; its tokens/s and those of the answer."""
    body = {
        "prompt": [random.randrange(1000, 50000) for _ in range(tokens)],  # noqa: S311
        "n_predict": answer_tokens, "ignore_eos": True, "cache_prompt": False, "temperature": 0,
    }  # fmt: skip
    timings = _call(f"{url}/completion", body, seconds=_within(until))["timings"]
    return [round(timings[key], 1) for key in ("prompt_per_second", "predicted_per_second")]


def _show(url: str, pixels: int, until: float) -> int:
    """Send an image; returns the tokens of the prompt, most of which are the image's."""
    image = f"data:image/png;base64,{base64.b64encode(png(pixels)).decode()}"
    content = [{"type": "image_url", "image_url": {"url": image}}, {"type": "text", "text": "see"}]
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 8}
    answer = _call(f"{url}/v1/chat/completions", body, seconds=_within(until))
    return int(answer["usage"]["prompt_tokens"])


def png(pixels: int) -> bytes:
    """A square image of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        whole = kind + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    header = struct.pack(">IIBBBBB", pixels, pixels, 8, 2, 0, 0, 0)
    rows = (b"\0" + b"\x40\x80\xc0" * pixels) * pixels
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def _within(until: float) -> float:
    return max(min(_ANSWER_SECONDS, until - time.monotonic()), 1)


def _call(url: str, body: dict[str, Any] | None, *, seconds: float) -> Any:
    """The server's answer."""
    request = urllib.request.Request(  # noqa: S310 - loopback
        url,
        data=json.dumps(body).encode() if body else None,
        headers={"Authorization": "Bearer measured", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310 - loopback
        return json.load(answer)


def gpu_count() -> int:
    """GPUs of this machine."""
    return len(_smi("--query-gpu=index"))


def held(pid: int, gpus: int) -> list[int]:
    """MiB that a process holds on each GPU, by nvidia-smi."""
    order = _smi("--query-gpu=uuid")
    found = dict.fromkeys(order, 0)
    for row in _smi("--query-compute-apps=gpu_uuid,pid,used_memory"):
        uuid, owner, mib = (part.strip() for part in row.split(","))
        if int(owner) == pid:
            found[uuid] += int(mib)
    return [found[uuid] for uuid in order][:gpus]


def _smi(query: str) -> list[str]:
    """Lines of nvidia-smi."""
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line.strip() for line in output.splitlines() if line.strip()]


def _anonymous_mib(pid: int) -> int:
    """Memory of a process that no file backs."""
    found = re.search(r"RssAnon:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(found.group(1)) // 1024 if found else 0
