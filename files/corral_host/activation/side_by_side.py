"""Switch side by side: clients are redirected to the new server before the old one stops.

An instance that moves to another port or address answers at the new one from then on. It also
answers at the old one until the old server has stopped and the new one serves without redirects.
"""

from corral_host.activation import switch
from corral_host.activation.drain import drain
from corral_host.activation.steps import confirmed, prepare, still_in_flight
from corral_host.checks.gate import PROOF, before_start, gate
from corral_host.checks.ready import wait_ready
from corral_host.packets import redirect
from corral_host.system.commands import HostError


def switch_to(activation):
    """Raises HostError. Until the old server stops, a revert interrupts nothing."""
    spare = switch.spare_of(activation.plan)
    prepare(activation)
    redirect.lay(activation.name, activation.onward, redirect.FOLLOW)
    prove_spare(activation, spare)
    with activation.phase("switching"):
        redirect.lay(activation.name, activation.onward, redirect.SEND_ON)
    confirmed(activation)
    with activation.phase("draining"):
        drain_old(activation)
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


def drain_old(activation):
    """Wait until the old server is idle; from half the limit on, close kept-alive connections."""
    before, limit = activation.previous, activation.drain_seconds
    port = before["endpoint"]["port"]

    def close_kept():
        redirect.lay(activation.name, activation.onward, redirect.SEND_ON, kept=(port,))

    if left := drain(before, limit, close_kept=close_kept):
        raise HostError(*still_in_flight(activation, left))
