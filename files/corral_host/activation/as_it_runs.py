"""Switch without a restart: the server keeps running, only what surrounds it is changed."""

from corral_host.activation import switch
from corral_host.activation.steps import prepare
from corral_host.checks.gate import PROOF, before_start, gate
from corral_host.instance.stored_plan import changed_parts

# Slow probes of the gate -> their key in the plan. Only those whose key changed run again.
LONG = {"speed": "speed", "soak": "soak_seconds"}


def switch_to(activation):
    """Raises HostError. The server is never stopped, so a revert interrupts nothing."""
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
