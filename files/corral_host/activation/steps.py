"""Steps that all ways to switch share."""

import errno

from corral_host.activation import switch
from corral_host.activation.confirm import await_confirmation
from corral_host.system.commands import FAULTS, HostError, what_is_wrong


class RefusedError(HostError):
    """A fault before any serving part was touched: the old server never stopped."""


def prepare(activation):
    """Raises RefusedError when the revert cannot be written, as with a full disk."""
    try:
        switch.prepare(activation)
    except FAULTS as fault:
        full = isinstance(fault, OSError) and fault.errno == errno.ENOSPC
        step = "free space there, run the same deploy again" if full else "fix that, deploy again"
        raise RefusedError(
            f"{activation.name}: nothing was switched, as the revert could not be prepared: "
            f"{what_is_wrong(fault)}",
            step,
        ) from fault


def still_in_flight(activation, left):
    """Message and next step for a drain that reached its limit."""
    return (
        f"{activation.name}: {left} requests were still in flight after "
        f"{activation.drain_seconds} s",
        "try again at a quieter time, or set a longer drain_seconds for the instance",
    )


def confirmed(activation):
    """Wait until the controller confirms over a new connection that it still reaches this host."""
    if activation.spec["confirm"]:
        limit = activation.plan["activation"]["confirm_seconds"]
        with activation.phase("confirm", activation.new):
            await_confirmation(activation.name, activation.new, limit)
