"""A change that its server need not know of: the server goes on, what surrounds it is put right."""

from corral_host import switch
from corral_host.attempt import phase
from corral_host.gate import PROOF, gate
from corral_host.steps import prepare


def switch_to(task, spec, report):
    """Raises HostError; the server is never stopped, so taking back interrupts nothing."""
    prepare(task)
    with phase(report, "writing its unit"):
        switch.put(task)
    with phase(report, "gate"):
        report["gate"] = gate(spec["instance"], PROOF)
