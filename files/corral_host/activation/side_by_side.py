"""Old and new at once: clients are sent to the new one before the old one stops.

One that moves to another port or address answers there from then on, and where it was until the
old one has stopped and the new one serves by itself.
"""

from corral_host.activation import switch
from corral_host.activation.drain import drain
from corral_host.activation.steps import confirmed, prepare, still_in_flight
from corral_host.checks.gate import PROOF, before_start, gate
from corral_host.checks.ready import wait_ready
from corral_host.packets import redirect
from corral_host.system.commands import HostError


def switch_to(activation):
    """Raises HostError; until the old server stops, taking back interrupts nothing."""
    spare = switch.spare_of(activation.plan)
    prepare(activation)
    redirect.lay(activation.name, activation.onward, redirect.FOLLOW)
    prove_spare(activation, spare)
    with activation.phase("switching"):
        redirect.lay(activation.name, activation.onward, redirect.SEND_ON)
    confirmed(activation)
    with activation.phase("draining"):
        empty(activation)
    with activation.phase("stopping"):
        switch.stop(activation.unit)
    activation.started = None
    with activation.phase("starting"):
        switch.put(activation)
        switch.start(activation.unit)
        wait_ready(activation.plan)
    with activation.phase("gate"):
        gate(activation.plan, PROOF)
    activation.report["gap_seconds"] = 0.0


def prove_spare(activation, spare):
    activation.report["gate"] = before_start(spare)
    activation.started = spare["unit"]
    with activation.phase("starting", f"on port {spare['endpoint']['port']}"):
        switch.start(spare["unit"])
        wait_ready(spare)
    with activation.phase("gate"):
        activation.report["gate"] += gate(spare)


def empty(activation):
    """The old server ends what it has; at half the limit kept connections are told to end."""
    before, limit = activation.previous, activation.drain_seconds
    port = before["endpoint"]["port"]

    def close_kept():
        redirect.lay(activation.name, activation.onward, redirect.SEND_ON, kept=(port,))

    if left := drain(before, limit, close_kept=close_kept):
        raise HostError(*still_in_flight(activation, left))
