"""Switch in place: drain, stop, start. It has a gap; for GPUs that cannot hold both servers."""

import time

from corral_host.activation import switch
from corral_host.activation.drain import drain
from corral_host.activation.steps import RefusedError, confirmed, prepare, still_in_flight
from corral_host.checks.gate import before_start, gate
from corral_host.checks.ready import wait_ready
from corral_host.packets import redirect


def switch_to(activation):
    """Raises HostError; RefusedError while the old server still serves."""
    instance, report = activation.plan, activation.report
    prepare(activation)
    began = time.monotonic()
    if activation.previous:
        with activation.phase("draining"):
            drain_old(activation)
        with activation.phase("stopping"):
            switch.refuse_until_ready(activation)
            switch.stop(activation.unit)
    report["gate"] = before_start(instance)
    with activation.phase("starting"):
        switch.put(activation)
        switch.start(activation.unit)
        wait_ready(instance)
    redirect.remove(activation.name)
    if activation.previous:
        report["gap_seconds"] = round(time.monotonic() - began, 2)
    with activation.phase("gate"):
        report["gate"] += gate(instance)
    confirmed(activation)


def drain_old(activation):
    """Keep new requests away and wait for those in flight.

    A gateway that drained the server sends it no requests; without one, packet rules refuse them.
    """
    before, limit = activation.previous, activation.drain_seconds
    port = before["endpoint"]["port"]
    if not activation.spec["drained"] and (unusable := redirect.refuse(activation.name, port)):
        activation.report["log"] = f"requests could not be kept away while draining: {unusable}\n"
    if left := drain(before, limit):
        raise RefusedError(*still_in_flight(activation, left))
