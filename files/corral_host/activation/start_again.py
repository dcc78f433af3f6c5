"""Restart the previous server, waiting for its port and its address."""

import contextlib
import subprocess
import time

from corral_host.activation import switch
from corral_host.activation.watchdog import OBSTACLE_SECONDS, GoingDownError
from corral_host.checks.ready import DiedError, wait_ready
from corral_host.system.addresses import missing_address, unbound
from corral_host.system.commands import say
from corral_host.system.processes import listeners

STARTS = 3
PAUSE_SECONDS = 0.5


def start_again(instance):
    """Stop whatever runs as the unit, start it, and wait until it is ready.

    ``instance``: an InstancePlan whose unit is installed. Raises the HostError of the last start.
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
            # The port may have been taken between the check and the start.
            if not left or time.monotonic() > deadline:
                raise


def wait_until_free(instance, deadline):
    """Wait until a server could listen; at the deadline the start is tried anyway."""
    wait_for_end(obstacle, instance, "cannot be started yet", deadline)


def wait_for_address(instance):
    """Wait until a host has the address of a server that runs, such as after a pulled cable."""
    deadline = time.monotonic() + OBSTACLE_SECONDS
    wait_for_end(missing_address, instance, "cannot be reached yet", deadline)


def wait_for_end(question, instance, state, deadline):
    """Wait until ``question`` has no answer about the endpoint any more, or the deadline."""
    reported = None
    while (what := question(instance["endpoint"])) and time.monotonic() < deadline:
        refuse_going_down()
        if what != reported:
            say(f"{instance['name']} {state}: {what}")
            reported = what
        time.sleep(PAUSE_SECONDS)


def obstacle(endpoint):
    """Why no server could listen at an endpoint now, or None."""
    if endpoint["socket"]:
        return None
    address, port = endpoint["address"], endpoint["port"]
    if holder := listeners([port]).get(str(port)):
        return f"port {port} is taken by {holder['program']} (pid {holder['pid']})"
    return unbound(address, port)


def refuse_going_down():
    """Raises GoingDownError at a shutdown: no server can start; the guard settles at next boot."""
    command = ["systemctl", "is-system-running"]
    with contextlib.suppress(FileNotFoundError):
        if subprocess.run(command, capture_output=True, text=True).stdout.strip() == "stopping":
            raise GoingDownError(
                "the host is going down; what was begun is settled when it is up again"
            )
