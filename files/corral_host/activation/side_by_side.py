"""Old and new at once: clients are sent to the new one before the old one stops.

One that moves to another port or address answers there from then on, and where it was until the
old one has stopped and the new one serves by itself.
"""

from corral_host.activation import switch
from corral_host.activation.drain import drain
from corral_host.activation.record import phase
from corral_host.activation.steps import confirmed, prepare, still_in_flight
from corral_host.checks.gate import PROOF, before_start, gate, wait_ready
from corral_host.packets import redirect
from corral_host.system.commands import HostError


def switch_to(task, spec, report):
    """Raises HostError; until the old server stops, taking back interrupts nothing."""
    spare = switch.spare_of(spec["instance"])
    prepare(task)
    redirect.lay(task["instance"], task["onward"], redirect.FOLLOW)
    prove_spare(task, spare, report)
    with phase(report, "switching"):
        redirect.lay(task["instance"], task["onward"], redirect.SEND_ON)
    confirmed(spec, report)
    with phase(report, "draining"):
        empty(task)
    with phase(report, "stopping"):
        switch.stop(task["unit"])
    del task["started"]
    with phase(report, "starting"):
        switch.put(task)
        switch.start(task["unit"])
        wait_ready(spec["instance"])
    with phase(report, "gate"):
        gate(spec["instance"], PROOF)
    report["gap_seconds"] = 0.0


def prove_spare(task, spare, report):
    report["gate"] = before_start(spare)
    task["started"] = spare["unit"]
    with phase(report, "starting", f"on port {spare['endpoint']['port']}"):
        switch.start(spare["unit"])
        wait_ready(spare)
    with phase(report, "gate"):
        report["gate"] += gate(spare)


def empty(task):
    """The old server ends what it has; at half the limit kept connections are told to end."""
    before, limit = task["before"], task["after"]["activation"]["drain_seconds"]
    port = before["endpoint"]["port"]

    def close_kept():
        redirect.lay(task["instance"], task["onward"], redirect.SEND_ON, kept=(port,))

    if left := drain(before, limit, close_kept=close_kept):
        raise HostError(still_in_flight(task, left, limit))
