"""Drain, stop, start: a switch with a gap, where there is no room for two."""

import time

from corral_host.activation import switch
from corral_host.activation.drain import drain
from corral_host.activation.record import phase
from corral_host.activation.steps import RefusedError, confirmed, prepare, still_in_flight
from corral_host.checks.gate import before_start, gate, wait_ready
from corral_host.packets import redirect


def switch_to(task, spec, report):
    """Raises HostError; RefusedError while the old server still serves."""
    instance = spec["instance"]
    prepare(task)
    began = time.monotonic()
    if task["before"]:
        with phase(report, "draining"):
            empty(task, spec, report)
        with phase(report, "stopping"):
            switch.stop(task["unit"])
    redirect.remove(task["instance"])
    report["gate"] = before_start(instance)
    with phase(report, "starting"):
        switch.put(task)
        switch.start(task["unit"])
        wait_ready(instance)
    if task["before"]:
        report["gap_seconds"] = round(time.monotonic() - began, 2)
    with phase(report, "gate"):
        report["gate"] += gate(instance)
    confirmed(spec, report)


def empty(task, spec, report):
    """No new requests, and those in flight end. A gateway sends none; else packet rules refuse."""
    before, limit = task["before"], task["after"]["activation"]["drain_seconds"]
    port = before["endpoint"]["port"]
    if not spec["drained"] and (unusable := redirect.refuse(task["instance"], port)):
        report["log"] = f"requests could not be kept away while draining: {unusable}\n"
    if left := drain(before, limit):
        raise RefusedError(still_in_flight(task, left, limit))
