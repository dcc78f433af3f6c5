"""Back to what served before: from what is on the host, without disk space, and only once."""

from pathlib import Path

from corral_host.activation import confirm, journal, record, switch
from corral_host.activation.drain import drain
from corral_host.activation.start_again import refuse_going_down, start_again
from corral_host.activation.watchdog import remove as remove_guard
from corral_host.checks import baseline
from corral_host.checks.gate import PROOF, gate
from corral_host.instance import history
from corral_host.packets import redirect, reserve_switch
from corral_host.server import staged_keys
from corral_host.server.held_keys import loaded, read
from corral_host.system.commands import FAULTS, say, show
from corral_host.system.locks import activate_lock, boot_id, held

# An activation of another instance has the lock for minutes, one with a long soak for hours. What
# waits tells who has it, gives up, and the guard comes again: it is never a wait without a word.
SETTLE_WAIT_SECONDS = 600


def settle(folder, units):
    """End an activation whose process is gone; gives its report, or None if there is none."""
    activation = journal.load(folder)
    if activation is None:
        remove_guard(units, Path(folder).name)
        return None
    with settling(activation.paths["state"], activation.name):
        report = settle_held(folder)
    record.forget_phase(record.job_name(activation.name))
    return report


def settling(state, instance):
    """The lock, for who settles. Raises HostError that names a holder which keeps it too long."""
    doing = f"settling {instance}"
    return held(activate_lock(state), "this host", doing, wait_seconds=SETTLE_WAIT_SECONDS)


def settle_held(folder):
    """The same, for who holds the lock."""
    activation = journal.load(folder)
    if activation is None:
        return None
    confirm.forget(activation.name)
    if activation.kept:
        return end(activation)
    return take_back(activation, "the activation was interrupted (killed, or a reboot)")


def guard(folder, units):
    """What the timer and the boot run: a job that is stuck ends, then its activation is settled."""
    activation = journal.load(folder)
    if activation is None:
        # Whoever is about to arm it again holds the lock.
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


def take_back(activation, reason, *, refused=False):
    """Undo an activation, prove what serves then, and write down how it went; gives the report."""
    report = activation.report
    with activation.phase("reverting"):
        outcome, told = undo(activation)
    left = [*switch.clear(activation), *let_go(activation, kept=False)]
    report["outcome"] = "refused" if refused and outcome == "reverted" else outcome
    shown = f"`corral show {report['host']}/{report['instance']}` tells more"
    after = f"Next: fix that, then run the same deploy again; {shown}"
    report["reason"] = "\n".join([reason, f"{told}. {after}", *left])
    write_down(activation)
    return report


def end(activation):
    """What is left of an activation that was decided to be kept; gives the report."""
    report = activation.report
    journal.put_in_place(activation)
    left = [*switch.clear(activation), *let_go(activation, kept=True)]
    report.update(outcome="kept", serving=activation.new)
    report["reason"] = "\n".join(filter(None, [report["reason"], *left]))
    write_down(activation)
    say(f"generation {activation.new} of {activation.name} is healthy")
    return report


def let_go(activation, *, kept):
    """Ports that nobody serves on any more; the next deploy does what cannot be done now."""
    try:
        reserve_switch.let_go(activation, kept)
    except FAULTS as fault:
        return [f"ports that nobody serves on are still reserved: {fault}"]
    return []


def write_down(activation):
    """The history, then the end of the activation; its guard outlives it by a moment."""
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
        say(f"the guard of {activation.name} goes when it is due or at the next boot: {fault}")


def undo(activation):
    """Gives the outcome, and a sentence on it. Raises HostError while the host goes down."""
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
    """The unit of before, and its server: left alone if it runs since before."""
    alone = is_untouched(activation)
    switch.put_back(activation)
    if alone:
        return
    if activation.how != "in place":
        start_again(activation.previous)
        return
    if passed(activation.report):
        let_end(activation)
    switch.refuse_until_ready(activation)
    start_again(activation.previous)
    redirect.remove(activation.name)


def let_end(activation):
    """What nobody confirmed may serve clients all the same: their requests are not cut off."""
    after = activation.plan
    redirect.refuse(activation.name, after["endpoint"]["port"])
    drain(after, after["activation"]["drain_seconds"])
    redirect.remove(activation.name)


def passed(report):
    return bool(report["gate"]) and all(row["ok"] for row in report["gate"])


def is_untouched(activation):
    """Whether the server of before was never stopped, or was started by this boot as it was."""
    unit = Path(activation.unit_path)
    now = show(activation.unit, "ActiveState", "InvocationID")
    if now["ActiveState"] != "active":
        return False
    if activation.boot_id == boot_id():
        return now["InvocationID"] == activation.invocation
    if not unit.exists() or unit.read_text() != switch.text_before(activation):
        return False
    # This boot may have started it with the new keys, whoever put the old ones back since.
    return loaded(activation.plan) == read(staged_keys.path_before(activation.plan["key_path"]))
