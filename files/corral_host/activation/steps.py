"""Steps that both ways to switch take."""

import errno

from corral_host.activation import switch
from corral_host.activation.confirm import await_confirmation
from corral_host.activation.record import phase
from corral_host.system.commands import FAULTS, HostError, what_is_wrong


class RefusedError(HostError):
    """A fault before anything that serves was touched: the old server never stopped."""


def prepare(task):
    """Raises RefusedError when the way back cannot be written, as with a full disk."""
    try:
        switch.prepare(task)
    except FAULTS as fault:
        full = isinstance(fault, OSError) and fault.errno == errno.ENOSPC
        step = "free space there, run the same deploy again" if full else "mend that, deploy again"
        raise RefusedError(
            f"{task['instance']}: nothing was switched, as the way back could not be prepared: "
            f"{what_is_wrong(fault)}",
            step,
        ) from fault


def still_in_flight(task, left, limit_seconds):
    return (
        f"{task['instance']}: {left} requests were still in flight after {limit_seconds} s. "
        "Next: try again at a quieter time, or set a longer drain_seconds for the instance"
    )


def confirmed(spec, report):
    """The controller says over a new connection that it still reaches this host."""
    if spec["confirm"]:
        instance = spec["instance"]
        limit = instance["activation"]["confirm_seconds"]
        with phase(report, "confirm", instance["generation"]):
            await_confirmation(instance["name"], instance["generation"], limit)
