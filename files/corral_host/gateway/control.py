"""Control which servers a running gateway sends requests to, by its runtime socket."""

import calendar
import contextlib
import fcntl
import json
import subprocess
import time
from pathlib import Path

from corral_shared.gateway_lines import base

from corral_host.gateway.socket import order, running_generation, save, servers, workers
from corral_host.system.commands import HostError, output, show
from corral_host.system.locks import lock_file

# Not in the folder of its sockets, which is removed when HAProxy stops.
LOCK = "/run/corral/locks/gateway.lock"
READY_SECONDS = 20
PAUSE_SECONDS = 0.2
UNTIL = "%Y-%m-%d %H:%M:%S UTC"


def gateway(question):
    """Run one action and return its answer.

    + do: one of ACTIONS; + folder: of the gateway's generations; + helper: path of this program
    """
    return ACTIONS[question["do"]](question)


def state(question):
    if not Path(question["folder"], "current").exists():
        return {"generation": None, "servers": []}
    found = servers()
    return {
        "generation": running_generation(),
        "servers": [{**row, **lease_of(base(row["server"]))} for row in found.values()],
    }


def drain(question):
    """Drain a server: no new requests; wait for the running ones, up to the limit.

    The drain ends with its lease. The last serving server of a pool is not drained, unless
    ``last`` is set.
    """
    name, began = question["server"], time.monotonic()
    with changing():
        found = known(name)
        if (pool := last_of(found)) and not question["last"]:
            return {"last_of": pool}
        lease(question)
        change(question, found, "state drain")
    left = wait_idle(name, question["limit_seconds"])
    return {"sessions_left": left, "seconds": round(time.monotonic() - began, 3)}


def ready(question):
    """End a drain; waits until the server's checks pass, at most ``patience_seconds``."""
    name = question["server"]
    with changing():
        change(question, known(name), "state ready")
        if not question["by_lease"]:
            end_lease(name)
    deadline = time.monotonic() + question.get("patience_seconds", READY_SECONDS)
    while not any(map(serves, known(name))) and time.monotonic() < deadline:
        time.sleep(PAUSE_SECONDS)
    return {"serving": any(map(serves, known(name)))}


def weigh(question):
    with changing():
        found = known(question["server"])
        if question["weight"] == 0 and (pool := last_of(found)):
            raise HostError(
                f"{question['server']} is the last server of {pool} that serves, and keeps its "
                "weight",
                "make another one ready first",
            )
        change(question, found, f"weight {question['weight']}")
    return {"weight": known(question["server"])[0]["weight"]}


def keep(question):
    """Save drains and weights, so that they outlive a reload; run before each reload."""
    save(config(question))
    return {"kept": True}


ACTIONS = {"state": state, "drain": drain, "ready": ready, "weight": weigh, "save": keep}


def known(name):
    """The rows of a server; it has two while it moves. Raises HostError for an unknown one."""
    found = servers()
    own = [row for row in found.values() if base(row["server"]) == name]
    if not own:
        raise HostError(f"no server {name} behind this gateway (known: {', '.join(found)})")
    return own


def serves(row):
    return row["up"] and row["admin"] == "ready" and row["weight"] > 0


def last_of(own):
    """The pool in which no server but these serves, or None."""
    serving, names = [row for row in servers().values() if serves(row)], [r["server"] for r in own]
    pools = dict.fromkeys(row["pool"] for row in own if serves(row))
    kept = {row["pool"] for row in serving if row["server"] not in names}
    return next((pool for pool in pools if pool not in kept), None)


def change(question, found, what):
    """Change a server in all workers: an old one may still get requests over its connections."""
    for row in found:
        command = f"set server {row['pool']}/{row['server']} {what}"
        for worker in workers()[1:]:
            with contextlib.suppress(HostError):  # it may end at any time
                order(command, worker)
        order(command)
    save(config(question))


def config(question):
    return Path(question["folder"], "current", "haproxy.cfg").read_text()


def wait_idle(name, limit_seconds):
    deadline = time.monotonic() + limit_seconds
    while (left := sum(row["sessions"] for row in known(name))) and time.monotonic() < deadline:
        time.sleep(PAUSE_SECONDS)
    return left


@contextlib.contextmanager
def changing():
    """One change at a time, so that two never take the last two servers."""
    with lock_file(LOCK) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def lease_unit(name):
    # No server's name has a colon, so no unit's name is a prefix of another server's.
    return f"corral-gateway-lease-{name.replace(':', '-')}:"


def leases(name):
    """Units of a server's leases: timers, and the service of a lease that ends now."""
    pattern = f"{lease_unit(name)}*"
    shown = output("systemctl", "list-units", "--all", "--plain", "--no-legend", pattern)
    return [line.split()[0] for line in shown.splitlines()]


def lease(question):
    """Start a systemd timer that makes the server ready again, whatever process dies meanwhile.

    It runs before the timers of earlier leases are stopped.
    """
    name, seconds = question["server"], question["lease_seconds"]
    before = leases(name)
    again = {**question, "do": "ready", "by_lease": True}
    until = time.strftime(UNTIL, time.gmtime(time.time() + seconds))
    later(lease_unit(name), seconds, question["helper"], "gateway", again, f"--description={until}")
    stop(before)


def later(unit, seconds, helper, command, question, *options):
    """Let systemd run a command of the helper after some seconds, and retry until it succeeds.

    ``unit``: the beginning of its name, up to a colon.
    """
    output(
        "systemd-run", "--quiet", "--collect", f"--unit={unit}{time.monotonic_ns()}", *options,
        f"--on-active={seconds}", "--timer-property=AccuracySec=1s",
        "--property=Restart=on-failure", "--property=RestartSec=5",
        "/usr/bin/python3", "-I", helper, command, json.dumps(question),
    )  # fmt: skip


def end_lease(name):
    stop(leases(name))


def stop(units):
    """Stop units; a failure is ignored, as one may end by itself meanwhile."""
    if units:
        subprocess.run(["systemctl", "--quiet", "stop", *units], stderr=subprocess.DEVNULL)


def lease_of(name):
    """When a drained server becomes ready again, for people, and in how many seconds.

    Both are None if it has no lease.
    """
    timers = [unit for unit in leases(name) if unit.endswith(".timer")]
    found = [show(unit, "ActiveState", "Description") for unit in timers]
    until = next((one["Description"] for one in found if one["ActiveState"] == "active"), None)
    left = calendar.timegm(time.strptime(until, UNTIL)) - time.time() if until else None
    return {"until": until, "lease_seconds": left}
