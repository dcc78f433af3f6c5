"""Start the server of before again, also where what it listens on is not free yet."""

import contextlib
import socket
import subprocess
import time

from corral_host.activation import switch
from corral_host.activation.watchdog import OBSTACLE_SECONDS
from corral_host.checks.ready import DiedError, wait_ready
from corral_host.system.commands import HostError, say
from corral_host.system.processes import listeners

STARTS = 3
PAUSE_SECONDS = 0.5


class GoingDownError(HostError):
    """The host shuts down: nothing can be judged, and nothing is."""


def start_again(instance):
    """End what runs as its unit, start it, and wait until it is ready.

    ``instance``: an InstancePlan, its unit is installed. Raises HostError, of the last start.
    """
    deadline = time.monotonic() + OBSTACLE_SECONDS
    switch.end(instance["unit"])
    for left in reversed(range(STARTS)):
        wait_until_free(instance, deadline)
        switch.start(instance["unit"])
        try:
            wait_ready(instance)
            return
        except DiedError:
            # The port may have been taken between the look and the start.
            if not left or time.monotonic() > deadline:
                raise


def wait_until_free(instance, deadline):
    """Until a server could listen there; at the deadline it is tried all the same."""
    told = None
    while (what := obstacle(instance["endpoint"])) and time.monotonic() < deadline:
        refuse_going_down()
        if what != told:
            say(f"{instance['name']} cannot be started yet: {what}")
            told = what
        time.sleep(PAUSE_SECONDS)


def obstacle(endpoint):
    """Why nobody could listen there now, or None."""
    if endpoint["socket"]:
        return None
    address, port = endpoint["address"], endpoint["port"]
    if holder := listeners([port]).get(str(port)):
        return f"port {port} is taken by {holder['program']} (pid {holder['pid']})"
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        # As servers do: connections of before that are not forgotten yet are no obstacle.
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            probe.setsockopt(socket.SOL_SOCKET, option, 1)
        try:
            probe.bind((address, port))
        except OSError as fault:
            return f"{address} port {port}: {fault.strerror}"
    return None


def refuse_going_down():
    """At a shutdown servers end and cannot be started; the guard settles at the next boot."""
    command = ["systemctl", "is-system-running"]
    with contextlib.suppress(FileNotFoundError):
        if subprocess.run(command, capture_output=True, text=True).stdout.strip() == "stopping":
            raise GoingDownError(
                "the host is going down; what was begun is settled when it is up again"
            )
