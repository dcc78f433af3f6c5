"""Back to what served before: from what is on the host, without disk space, and only once."""

from pathlib import Path

from corral_host.activation import confirm, record, switch
from corral_host.activation import journal as tasks
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
    task = tasks.load(folder)
    if task is None:
        remove_guard(units, Path(folder).name)
        return None
    with settling(task["state"], task["instance"]):
        report = settle_held(folder)
    record.forget_phase(record.job_name(task["instance"]))
    return report


def settling(state, instance):
    """The lock, for who settles. Raises HostError that names a holder which keeps it too long."""
    doing = f"settling {instance}"
    return held(activate_lock(state), "this host", doing, wait_seconds=SETTLE_WAIT_SECONDS)


def settle_held(folder):
    """The same, for who holds the lock."""
    task = tasks.load(folder)
    if task is None:
        return None
    confirm.forget(task["instance"])
    if task["kept"]:
        return end(task, task["report"])
    return take_back(task, task["report"], "the activation was interrupted (killed, or a reboot)")


def guard(folder, units):
    """What the timer and the boot run: a job that is stuck ends, then its activation is settled."""
    task = tasks.load(folder)
    if task is None:
        # Whoever is about to arm it again holds the lock.
        state, name = Path(folder).parents[1], Path(folder).name
        with settling(state, name):
            if tasks.load(folder) is None:
                remove_guard(units, name)
        return {"settled": None}
    switch.quiet("kill", "--signal=KILL", task["job"])
    report = settle(folder, units)
    if report:
        say(f"{report['instance']}: {report['outcome']}. {report['reason']}")
    return {"settled": report}


def take_back(task, report, reason, *, refused=False):
    """Undo an activation, prove what serves then, and write down how it went; gives the report."""
    with record.phase(report, "reverting"):
        outcome, told = undo(task, report)
    left = [*switch.clear(task), *let_go(task, kept=False)]
    report["outcome"] = "refused" if refused and outcome == "reverted" else outcome
    shown = f"`corral show {report['host']}/{report['instance']}` tells more"
    after = f"Next: mend that, then run the same deploy again; {shown}"
    report["reason"] = "\n".join([reason, f"{told}. {after}", *left])
    write_down(task, report)
    return report


def end(task, report):
    """What is left of an activation that was decided to be kept; gives the report."""
    tasks.put_in_place(task)
    left = [*switch.clear(task), *let_go(task, kept=True)]
    report.update(outcome="kept", serving=task["to"])
    report["reason"] = "\n".join(filter(None, [report["reason"], *left]))
    write_down(task, report)
    say(f"generation {task['to']} of {task['instance']} is healthy")
    return report


def let_go(task, *, kept):
    """Ports that nobody serves on any more; the next deploy does what cannot be done now."""
    try:
        reserve_switch.let_go(task, kept)
    except FAULTS as fault:
        return [f"ports that nobody serves on are still reserved: {fault}"]
    return []


def write_down(task, report):
    """The history, then the end of the activation; its guard outlives it by a moment."""
    try:
        history.record(task["folder"], report)
    except OSError as fault:
        report["reason"] = f"{report['reason']}\nthe history could not be written: {fault}".strip()
    baseline.drop(task["after"])
    tasks.forget(task)
    try:
        remove_guard(task["units"], task["instance"])
    except FAULTS as fault:
        say(f"the guard of {task['instance']} goes when it is due or at the next boot: {fault}")


def undo(task, report):
    """Gives the outcome, and a sentence on it. Raises HostError while the host goes down."""
    refuse_going_down()
    if task["before"] is None:
        switch.withdraw(task)
        report["serving"] = None
        return "reverted", "no generation served before: the unit was stopped and removed"
    old, name = task["from"], task["instance"]
    try:
        restore(task, report)
        report["revert_gate"] = gate(task["before"], PROOF)
    except FAULTS as fault:
        refuse_going_down()
        report["serving"], report["revert_gate"] = None, getattr(fault, "rows", [])
        return "revert failed", f"REVERT FAILED, {name} is down on generation {old}: {fault}"
    report["serving"] = old
    return "reverted", f"Reverted: generation {old} serves again"


def restore(task, report):
    """The unit of before, and its server: left alone if it runs since before."""
    alone = is_untouched(task)
    switch.put_back(task)
    if alone:
        return
    if task["how"] == "in place" and passed(report):
        let_end(task)
    start_again(task["before"])


def let_end(task):
    """What nobody confirmed may serve clients all the same: their requests are not cut off."""
    after = task["after"]
    redirect.refuse(task["instance"], after["endpoint"]["port"])
    drain(after, after["activation"]["drain_seconds"])
    redirect.remove(task["instance"])


def passed(report):
    return bool(report["gate"]) and all(row["ok"] for row in report["gate"])


def is_untouched(task):
    """Whether the server of before was never stopped, or was started by this boot as it was."""
    unit = Path(task["unit_path"])
    now = show(task["unit"], "ActiveState", "InvocationID")
    if now["ActiveState"] != "active":
        return False
    if task["boot_id"] == boot_id():
        return now["InvocationID"] == task["invocation"]
    if not unit.exists() or unit.read_text() != switch.text_before(task):
        return False
    # This boot may have started it with the new keys, whoever put the old ones back since.
    return loaded(task["after"]) == read(staged_keys.path_before(task))
