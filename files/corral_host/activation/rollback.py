"""Revert an activation: with what is on the host, without disk space, and exactly once."""

from pathlib import Path

from corral_host.activation import confirm, journal, record, switch
from corral_host.activation.drain import drain
from corral_host.activation.start_again import (
    refuse_going_down,
    start_again,
    wait_for_address,
)
from corral_host.activation.watchdog import remove as remove_guard
from corral_host.checks import baseline
from corral_host.checks.gate import PROOF, gate
from corral_host.instance import history
from corral_host.packets import redirect, reserve_switch
from corral_host.server import staged_keys
from corral_host.server.held_keys import loaded, read
from corral_host.system.commands import FAULTS, say, show
from corral_host.system.locks import activate_lock, boot_id, held

# An activation of another instance holds the lock for minutes, one with a long soak for hours.
# Whoever waits names the holder and gives up in the end; the guard then tries again.
SETTLE_WAIT_SECONDS = 600


def settle(folder, units):
    """Settle an activation whose process is gone; returns its report, or None if there is none."""
    activation = journal.load(folder)
    if activation is None:
        remove_guard(units, Path(folder).name)
        return None
    with settling(activation.paths["state"], activation.name):
        report = settle_held(folder)
    record.forget_phase(record.job_name(activation.name))
    return report


def settling(state, instance):
    """Hold the lock to settle. Raises HostError that names a holder which keeps it too long."""
    doing = f"settling {instance}"
    return held(activate_lock(state), "this host", doing, wait_seconds=SETTLE_WAIT_SECONDS)


def settle_held(folder):
    """Like settle(); the caller must hold the lock."""
    activation = journal.load(folder)
    if activation is None:
        return None
    confirm.forget(activation.name)
    if activation.kept:
        return finish(activation)
    return revert_and_record(activation, "the activation was interrupted (killed, or a reboot)")


def guard(folder, units):
    """Kill a stuck job, then settle its activation; run by the guard's timer and at boot."""
    activation = journal.load(folder)
    if activation is None:
        # An activation that is about to arm the guard again holds the lock.
        state, name = Path(folder).parents[1], Path(folder).name
        with settling(state, name):
            if journal.load(folder) is None:
                remove_guard(units, name)
        return {"settled": None}
    switch.quiet("kill", "--signal=KILL", activation.job_unit)
    report = settle(folder, units)
    if report:
        say(f"{report['instance']}: {report['outcome']}. {report['reason']}")
    return {"settled": report}


def revert_and_record(activation, reason, *, refused=False):
    """Revert an activation, prove what serves then, and record it; returns the report."""
    report = activation.report
    with activation.phase("reverting"):
        outcome, summary = revert(activation)
    left = [*switch.clear(activation), *release_ports(activation, kept=False)]
    report["outcome"] = "refused" if refused and outcome == "reverted" else outcome
    details = f"details: `corral show {report['host']}/{report['instance']}`"
    after = f"Next: fix that, then run the same deploy again; {details}"
    report["reason"] = "\n".join([reason, f"{summary}. {after}", *left])
    write_down(activation)
    return report


def finish(activation):
    """Finish an activation after the decision to keep its generation; returns the report."""
    report = activation.report
    journal.put_in_place(activation)
    left = [*switch.clear(activation), *release_ports(activation, kept=True)]
    report.update(outcome="kept", serving=activation.new)
    report["reason"] = "\n".join(filter(None, [report["reason"], *left]))
    write_down(activation)
    say(f"generation {activation.new} of {activation.name} is healthy")
    return report


def release_ports(activation, *, kept):
    """Release ports that no server needs any more; a failure is left to the next deploy."""
    try:
        reserve_switch.release_ports(activation, kept)
    except FAULTS as fault:
        return [f"ports that nobody serves on are still reserved: {fault}"]
    return []


def write_down(activation):
    """Write the history, then remove the journal, and last the guard."""
    report = activation.report
    try:
        history.record(activation.folder, report)
    except OSError as fault:
        report["reason"] = f"{report['reason']}\nthe history could not be written: {fault}".strip()
    baseline.drop(activation.plan)
    journal.forget(activation)
    try:
        remove_guard(activation.paths["units"], activation.name)
    except FAULTS as fault:
        say(
            f"the guard of {activation.name} could not be removed; it removes itself when it is "
            f"due or at the next boot: {fault}"
        )


def revert(activation):
    """Revert; returns the outcome and a sentence on it. Raises HostError at a shutdown."""
    report = activation.report
    refuse_going_down()
    if activation.previous is None:
        switch.withdraw(activation)
        report["serving"] = None
        return "reverted", "no generation served before: the unit was stopped and removed"
    old, name = activation.old, activation.name
    try:
        restore(activation)
        report["revert_gate"] = gate(activation.previous, PROOF)
    except FAULTS as fault:
        refuse_going_down()
        report["serving"], report["revert_gate"] = None, getattr(fault, "rows", [])
        return "revert failed", f"REVERT FAILED, {name} is down on generation {old}: {fault}"
    report["serving"] = old
    return "reverted", f"Reverted: generation {old} serves again"


def restore(activation):
    """Restore the previous unit and restart its server, unless that server never stopped."""
    alone = is_untouched(activation)
    switch.restore_unit(activation)
    if alone:
        wait_for_address(activation.previous)
        return
    if activation.how != "in place":
        start_again(activation.previous)
        return
    if passed(activation.report):
        drain_unconfirmed(activation)
    switch.refuse_until_ready(activation)
    start_again(activation.previous)
    redirect.remove(activation.name)


def drain_unconfirmed(activation):
    """Drain the new server: without a confirmation, too, it may serve clients already."""
    after = activation.plan
    redirect.refuse(activation.name, after["endpoint"]["port"])
    drain(after, after["activation"]["drain_seconds"])
    redirect.remove(activation.name)


def passed(report):
    return bool(report["gate"]) and all(row["ok"] for row in report["gate"])


def is_untouched(activation):
    """Whether the previous server was never stopped, or this boot started it unchanged."""
    unit = Path(activation.unit_path)
    now = show(activation.unit, "ActiveState", "InvocationID")
    if now["ActiveState"] != "active":
        return False
    if activation.boot_id == boot_id():
        return now["InvocationID"] == activation.invocation
    if not unit.exists() or unit.read_text() != switch.text_before(activation):
        return False
    # This boot may have started it with the new keys, even if the old ones were restored since.
    return loaded(activation.plan) == read(staged_keys.path_before(activation.plan["key_path"]))
