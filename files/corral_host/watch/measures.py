"""Measures against a server that does not serve: a restart, and at last a stop. Each is recorded.

The gateway's own check takes a server that is down out; `corral status` shows the record.
"""

import contextlib
import json
import socket
import time
from pathlib import Path

from corral_host.system.commands import FAULTS, output, read_json, say, write_atomic

JOURNAL = "/run/systemd/journal/socket"
ERROR = 3
# Restarts count against the limit for so long.
WITHIN_SECONDS = 3600


class Record:
    """What the service found and did about one instance; ``path``: where that is kept.

    ``fault``: what is wrong now, or empty; ``restarts``: when it restarted the server
    """

    def __init__(self, folder, name):
        self.path = Path(folder) / f"{name}.json"
        found = read_json(self.path) or {}
        self.fault = found.get("fault", "")
        self.restarts = found.get("restarts", [])
        self.stopped = found.get("stopped", "")

    def write(self):
        # A full disk must not keep a server from being restarted.
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(mode=0o700, exist_ok=True)
            found = {"fault": self.fault, "restarts": self.restarts, "stopped": self.stopped}
            write_atomic(self.path, json.dumps(found))


def is_fine(record, run):
    """A server was found to serve; ``run``: the id of this run of its unit.

    Somebody started a server that was stopped here: its restarts count from now on.
    """
    started = record.stopped not in ("", run)
    if record.fault or started:
        record.fault, record.stopped = "", ""
        record.restarts = [] if started else record.restarts
        record.write()


def act(record, instance, run, why, limit):
    """Restart a server, or stop it after ``limit`` restarts within an hour."""
    now = time.time()
    if record.stopped not in ("", run["id"]):
        record.restarts = []
    record.restarts = [one for one in record.restarts if 0 <= now - one < WITHIN_SECONDS]
    stops = len(record.restarts) >= limit
    done = (
        f"stopped, after {limit} restarts within an hour. Next: see `corral logs`, fix the host, "
        f"then `corral start {instance['name']}`"
        if stops
        else f"restarted ({len(record.restarts) + 1} of {limit} within an hour)"
    )
    record.fault, record.stopped = f"{why}; {done}", run["id"] if stops else ""
    record.restarts += [] if stops else [now]
    record.write()
    tell(instance, run["pid"], record.fault)
    try:
        output("systemctl", "stop" if stops else "restart", instance["unit"])
    except FAULTS as fault:
        say(f"{instance['name']}: {fault}")


def tell(instance, pid, text):
    """An entry in the journal of the instance's unit, and in that of this service."""
    say(f"{instance['name']}: {text}")
    # journald names the unit of a process in OBJECT_SYSTEMD_UNIT=, which `journalctl --unit=` shows
    # (systemd.journal-fields(7)).
    fields = {
        "PRIORITY": ERROR, "SYSLOG_IDENTIFIER": "corral", "OBJECT_PID": pid,
        "MESSAGE": " ".join(f"{instance['name']}: {text}".split()),
    }  # fmt: skip
    entry = "".join(f"{name}={value}\n" for name, value in fields.items())
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.sendto(entry.encode(), JOURNAL)
