"""The health gate: what a server must prove before its generation is kept."""

from functools import partial

from corral_host import engines
from corral_host.checks import probes
from corral_host.checks.baseline import keep_baseline
from corral_host.checks.ready import REASON_LINES, DiedError, invocation, journal_tail
from corral_host.instance.gate_rows import GateFailed, first_line, not_asked, row
from corral_host.system.commands import FAULTS, HostError, say

__all__ = ["EVERYTHING", "PROOF", "GateFailed", "before_start", "gate", "keep_baseline"]

PARTS = {probe.name: probe for probe in probes.PROBES if probe.in_gate}
# PROOF proves that a generation serves, an old one too; the rest compares a new one with the old.
PROOF = probes.of_gate(probes.PROOF)
EVERYTHING = probes.of_gate(probes.PROOF, probes.COMPARED)


def gate(instance, parts=EVERYTHING):
    """Run the probes that the plan asks for, in order; returns their rows. Raises GateFailed.

    The first failure ends the gate. ``instance``: an InstancePlan whose unit runs. If the unit was
    restarted meanwhile, the current probe fails.
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
    """Run the probes that measure while the server is stopped; returns rows. Raises GateFailed."""
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
    try:
        found = PARTS[part].run(instance)
    except DiedError:
        raise
    except FAULTS:
        # Its end may be why the probe failed; the reason is in its log.
        if invocation(instance) != first:
            raise restarted(instance, first) from None
        raise
    if invocation(instance) != first:
        raise restarted(instance, first)
    return found


def restarted(instance, first):
    what = "the server ended and was started again meanwhile"
    reason = engines.of(instance).why_it_ended(journal_tail(first, REASON_LINES))
    return HostError(f"{what}: {reason[0]}", reason[1]) if reason else HostError(what)


def attempt(one, instance, part):
    """A probe's row, and the reason if it failed. A probe that cannot decide has failed, too."""
    name = instance["name"]
    try:
        found = one(instance)
    except (*FAULTS, TypeError, AttributeError) as fault:
        found = row(part, False, "", "", first_line(fault))
        reason = fault if isinstance(fault, HostError) else found["detail"]
        return found, str(reason) if part == "ready" else f"{name}: {part} failed: {reason}"
    outcome = f"{part} {found['figure']}, limit {found['limit']}"
    if found["ok"]:
        say(f"gate of {name}: {outcome}")
    return found, f"{name}: the gate failed. {outcome}. {found['detail']}".strip()
