"""Drain: wait until a server has answered the requests it has."""

import contextlib
import time
from functools import partial
from pathlib import Path

from corral_host import engines
from corral_host.server.http import call, loaded_key
from corral_host.system.commands import FAULTS, show

PAUSE_SECONDS = 0.25
# So many samples in a row without a request: one may be between two states, or on its way.
IDLE_LOOKS = 3
# Established, or about to be.
STANDING = ("01", "03")


def drain(server, limit_seconds, *, close_kept=None):
    """Wait for the requests in flight; returns how many are left at the limit.

    ``close_kept``: called from half the limit on, makes kept-alive connections end. With it, idle
    connections are waited for too, up to the limit; without it they are not.
    """
    began, looks = time.monotonic(), 0
    while True:
        connections, requests = in_flight(server)
        waited = time.monotonic() - began
        looks = 0 if requests else looks + 1
        idle = looks >= IDLE_LOOKS and (close_kept is None or waited >= limit_seconds)
        if not connections or idle or waited >= limit_seconds:
            return requests
        if close_kept and waited >= limit_seconds / 2:
            close_kept()
        time.sleep(PAUSE_SECONDS)


def in_flight(server):
    """Numbers of connections to a server and of requests in flight.

    A server that does not report its requests counts as having one for each connection.
    """
    pid = int(show(server["unit"], "MainPID")["MainPID"])
    queues = connections(server["endpoint"], pid) if pid else []
    if not queues:
        return 0, 0
    reported = processing(server)
    unread = sum(1 for waiting in queues if waiting)
    return len(queues), len(queues) if reported is None else max(reported, unread)


def connections(endpoint, pid):
    """For each established connection to an endpoint: whether bytes wait in its queues here."""
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
    """Whether bytes wait, for each established row of /proc/net/tcp on a port.

    Columns of a row, see proc(5): 1 is the local address, 3 the state, 4 the queues, out:in.
    """
    mine = [r for r in rows if r[3] in STANDING and int(r[1].rpartition(":")[2], 16) == port]
    return [row[4] != "00000000:00000000" for row in mine]


def processing(server):
    """Requests that a server reports as running or queued; None if it reports none."""
    with contextlib.suppress(*FAULTS):
        return engines.of(server).in_flight(server, partial(ask, server))
    return None


def ask(server, path):
    code, body = call(server, "GET", path, key=loaded_key(server), timeout=2)
    if code != 200:
        raise ValueError(f"{path} answered {code}")
    return body
