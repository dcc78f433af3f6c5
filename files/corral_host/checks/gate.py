"""The health gate: what a server must prove before its generation is kept."""

from functools import partial

from corral_host.checks import probes
from corral_host.checks.baseline import keep_baseline
from corral_host.checks.ready import invocation
from corral_host.instance.gate_rows import GateFailed, not_asked, row, told
from corral_host.system.commands import FAULTS, HostError, say

__all__ = ["EVERYTHING", "PROOF", "GateFailed", "before_start", "gate", "keep_baseline"]

PARTS = {probe.name: probe for probe in probes.PROBES if probe.in_gate}
# That an old generation serves again; the rest compares a new one with it.
PROOF = probes.of_gate(probes.PROOF)
EVERYTHING = probes.of_gate(probes.PROOF, probes.COMPARED)


def gate(instance, parts=EVERYTHING):
    """Rows of all parts that the plan asks for, in order. Raises GateFailed at the first failed.

    ``instance``: an InstancePlan; its unit runs already. A unit that was started again meanwhile
    fails the part in which that was seen.
    """
    first = invocation(instance)
    asked, rows = [part for part in parts if applies(instance, part)], []
    for number, part in enumerate(asked):
        found, reason = attempt(partial(proved, part=part, first=first), instance, part)
        rows.append(found)
        if not found["ok"]:
            raise GateFailed(reason, [*rows, *map(not_asked, asked[number + 1 :])])
    return rows


def before_start(instance):
    """Rows of what is measured while the server is away. Raises GateFailed."""
    rows = []
    for part in probes.of_gate(probes.BEFORE_START):
        if applies(instance, part):
            found, reason = attempt(PARTS[part].run, instance, part)
            rows.append(found)
            if not found["ok"]:
                raise GateFailed(reason, rows)
    return rows


def applies(instance, part):
    return bool(PARTS[part].applies(instance))


def proved(instance, part, first):
    found = PARTS[part].run(instance)
    if invocation(instance) != first:
        raise HostError("the server ended and was started again meanwhile")
    return found


def attempt(one, instance, part):
    """A part's row, and why it failed. What a part cannot find out is failed, too."""
    name = instance["name"]
    try:
        found = one(instance)
    except (*FAULTS, TypeError, AttributeError) as fault:
        found = row(part, False, "", "", told(fault))
        reason = fault if isinstance(fault, HostError) else found["detail"]
        return found, str(reason) if part == "ready" else f"{name}: {part} failed: {reason}"
    outcome = f"{part} {found['figure']}, limit {found['limit']}"
    if found["ok"]:
        say(f"gate of {name}: {outcome}")
    return found, f"{name}: the gate failed. {outcome}. {found['detail']}".strip()
