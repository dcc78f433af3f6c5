"""A change that its server need not know of: the server goes on, what surrounds it is put right."""

from corral_host.activation import switch
from corral_host.activation.steps import prepare
from corral_host.checks.gate import PROOF, before_start, gate
from corral_host.instance.stored_plan import changed_parts

# Parts of a gate that take long -> their key of the plan. Only what changed is measured again.
LONG = {"speed": "speed", "soak": "soak_seconds"}


def switch_to(activation):
    """Raises HostError; the server is never stopped, so taking back interrupts nothing."""
    instance, report = activation.plan, activation.report
    changed = changed_parts(instance)
    prepare(activation)
    with activation.phase("writing its unit"):
        switch.put(activation)
    with activation.phase("gate"):
        if "perplexity" in changed:
            report["gate"] += before_start(instance)
        parts = [part for part, key in LONG.items() if key in changed]
        report["gate"] += gate(instance, (*PROOF, *parts))
