"""Wait until a server has answered all that it was asked."""

import contextlib
import time
from functools import partial
from pathlib import Path

from corral_host import engines
from corral_host.server.http import call, loaded_key
from corral_host.system.commands import FAULTS, show

PAUSE_SECONDS = 0.25
# A request may be between two states, or on its way, for a moment.
IDLE_LOOKS = 3
# Established, or about to be.
STANDING = ("01", "03")


def drain(server, limit_seconds, *, close_kept=None):
    """Wait for the requests in flight; gives how many there still are at the limit.

    ``close_kept``: called at half the limit, makes kept connections end; until the limit idle ones
    are waited for as well. Without it they are not.
    """
    began, looks = time.monotonic(), 0
    while True:
        connections, requests = look(server)
        waited = time.monotonic() - began
        looks = 0 if requests else looks + 1
        idle = looks >= IDLE_LOOKS and (close_kept is None or waited >= limit_seconds)
        if not connections or idle or waited >= limit_seconds:
            return requests
        if close_kept and waited >= limit_seconds / 2:
            close_kept()
        time.sleep(PAUSE_SECONDS)


def look(server):
    """Connections to a server, and how many requests are in flight; each, where it cannot tell."""
    pid = int(show(server["unit"], "MainPID")["MainPID"])
    queues = connections(server["endpoint"], pid) if pid else []
    if not queues:
        return 0, 0
    told = processing(server)
    unread = sum(1 for waiting in queues if waiting)
    return len(queues), len(queues) if told is None else max(told, unread)


def connections(endpoint, pid):
    """For each established connection to an endpoint whether bytes of it wait at this end."""
    if endpoint["socket"]:
        table = Path("/proc/net/unix").read_text().splitlines()[1:]
        rows = [line.split() for line in table]
        return [False for row in rows if row[7:] == [endpoint["socket"]] and row[5] == "03"]
    found = []
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            table = Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:]
            found += established([line.split() for line in table], endpoint["port"])
    return found


def established(rows, port):
    """Of the rows of /proc/net/tcp: local address, state, queues out:in. See proc(5)."""
    mine = [r for r in rows if r[3] in STANDING and int(r[1].rpartition(":")[2], 16) == port]
    return [row[4] != "00000000:00000000" for row in mine]


def processing(server):
    """Requests that a server works on or keeps waiting, in its own words; None if it says none."""
    with contextlib.suppress(*FAULTS):
        return engines.of(server).in_flight(server, partial(ask, server))
    return None


def ask(server, path):
    code, body = call(server, "GET", path, key=loaded_key(server), timeout=2)
    if code != 200:
        raise ValueError(f"{path} answered {code}")
    return body
