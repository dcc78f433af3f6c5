"""A change that its server need not know of: the server goes on, what surrounds it is put right."""

from corral_host.activation import switch
from corral_host.activation.record import phase
from corral_host.activation.steps import prepare
from corral_host.checks.gate import PROOF, before_start, gate
from corral_host.instance.stored_plan import changed_parts

# Parts of a gate that take long -> their key of the plan. Only what changed is measured again.
LONG = {"speed": "speed", "soak": "soak_seconds"}


def switch_to(task, spec, report):
    """Raises HostError; the server is never stopped, so taking back interrupts nothing."""
    instance = spec["instance"]
    changed = changed_parts(instance)
    prepare(task)
    with phase(report, "writing its unit"):
        switch.put(task)
    with phase(report, "gate"):
        if "perplexity" in changed:
            report["gate"] += before_start(instance)
        parts = [part for part, key in LONG.items() if key in changed]
        report["gate"] += gate(instance, (*PROOF, *parts))
