"""Clients on a lab host that send the same request again and again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from corral.store.api_keys import keys_in
from lab.alerts.host import N, Watched
from lab.gpus import File, writing

# The key comes by a file that root alone can read. What it counts is written after each answer.
_PROGRAM = """
import json, sys, threading, time, urllib.error, urllib.request
url, key, body, clients, pause = json.load(open(sys.argv[1]))
counted, lock = {"asked": 0, "failed": 0}, threading.Lock()
def ask():
    headers = {"Authorization": "Bearer " + key, "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        return len(urllib.request.urlopen(request).read()) == 0
    except (urllib.error.URLError, OSError):
        return True
def repeat():
    while True:
        failed = ask()
        with lock:
            counted["asked"] += 1
            counted["failed"] += failed
            with open(sys.argv[1] + ".counted", "w") as file:
                json.dump(counted, file)
        time.sleep(max(pause, 1) if failed else pause)
for _ in range(clients):
    threading.Thread(target=repeat, daemon=True).start()
threading.Event().wait()
"""


@contextmanager
def clients(
    watched: Watched, name: str, body: dict[str, Any], *, count: int, pause_seconds: float
) -> Iterator[None]:
    """So many clients, each with a pause after each answer, until the block ends."""
    (key, *_) = keys_in(watched.fleet.key_file(N).read_text())
    url = f"{watched.fleet.url(N)}/completion"
    settings = json.dumps([url, key, body, count, pause_seconds])
    watched.on(writing([File(_path(name)[1:], f"{settings}\n", 0o600)]))
    program = f"python3 -c {shlex.quote(_PROGRAM)} {_path(name)}"
    watched.on(f"systemd-run --quiet --collect --unit={name} {program}")
    try:
        yield
    finally:
        watched.on(f"systemctl stop {name}; rm {_path(name)}")


@contextmanager
def steady(watched: Watched, *, pause_seconds: float = 0.3) -> Iterator[None]:
    """One request after the other, as a server has that works."""
    body = {"prompt": "Say hello.", "n_predict": 32, "ignore_eos": True}
    with clients(watched, "alerts-steady", body, count=1, pause_seconds=pause_seconds):
        yield


def counted(watched: Watched) -> dict[str, int]:
    """Requests that `steady` has "asked", and how many "failed"."""
    found: dict[str, int] = json.loads(watched.on(f"cat {_path('alerts-steady')}.counted"))
    return found


def _path(name: str) -> str:
    return f"/run/{name}.json"
