"""Switch an instance to a generation, keep it if it passes the gate, else put the old one back."""

import contextlib
from secrets import randbelow

from corral_host.activation import (
    as_it_runs,
    in_place,
    preconditions,
    record,
    rollback,
    side_by_side,
)
from corral_host.activation import journal as tasks
from corral_host.activation.record import failed, phase
from corral_host.activation.start_again import GoingDownError
from corral_host.activation.steps import RefusedError
from corral_host.checks.gate import journal_tail, keep_baseline
from corral_host.instance import history
from corral_host.instance.state import instance_state
from corral_host.system.commands import FAULTS, HostError, as_fault, say, show
from corral_host.system.locks import activate_lock, boot_id, held, refuse_other_rollout

HOWS = {
    "first": in_place.switch_to,
    "in place": in_place.switch_to,
    "side by side": side_by_side.switch_to,
    preconditions.GOES_ON: as_it_runs.switch_to,
}
# Phases in which a server was started that may have said why it failed.
STARTED = ("starting", "gate", "soak", "confirm")


def activate(spec, by, run=None):
    """Switch to a staged generation; gives the report, which a fault carries as well.

    ``run``: the id of the job's run, by which its report is told from others.
    ``spec``: host, paths, instance, instances, releases, shards, drained, confirm, rollout; and
    rekeyed, which is False where keys that wait go on waiting.
    """
    instance = spec["instance"]
    report = record.new_report(spec, instance["name"], instance["generation"], by)
    report["run"] = run
    try:
        return with_lock(spec, report)
    except GoingDownError:
        raise
    except FAULTS as fault:
        if getattr(fault, "answer", None):
            raise
        with contextlib.suppress(OSError):
            history.record(instance["folder"], report | {"reason": str(fault)})
        raise failed(report, str(fault)) from fault


def foresee(spec):
    """How an activation would go, as things are now; changes nothing.

    ``how`` is None where something stands against it: ``faults``, and as texts, for controllers
    of earlier versions, ``obstacles``.
    """
    try:
        before = preconditions.served_before(spec["instance"])
        faults, rows = preconditions.findings(spec)
        how = None if faults else preconditions.decide(spec, before, rows)
    except FAULTS as fault:
        how, faults = None, [fault]
    return {
        "how": how, "obstacles": [str(one) for one in faults],
        "faults": [as_fault(one) for one in faults],
    }  # fmt: skip


def with_lock(spec, report):
    instance, state = spec["instance"], spec["paths"]["state"]
    with contextlib.ExitStack() as held_until_the_end:
        with phase(report, "waiting for the lock"):
            doing = f"activating {instance['name']}"
            held_until_the_end.enter_context(held(activate_lock(state), report["by"], doing))
            refuse_other_rollout(state, spec["rollout"])
        rollback.settle_held(instance["folder"])
        found = instance_state(instance, rekeyed=spec.get("rekeyed", True))
        report["from"] = found["installed_generation"]
        report["serving"] = report["from"] if found["active"] == "active" else None
        if found["serves"]:
            say(f"generation {instance['generation']} of {instance['name']} serves already")
            return report | {"outcome": "unchanged"}
        with phase(report, "checking"):
            task = checked(spec, report)
        return switch(task, spec, report)


def checked(spec, report):
    """What is going to be done. Raises HostError with all that stands against it."""
    before = preconditions.served_before(spec["instance"])
    faults, rows = preconditions.findings(spec)
    if faults:
        raise HostError("\n".join(map(str, faults)))
    how = preconditions.decide(spec, before, rows)
    report.update(how=how, **{"from": before and before["generation"]})
    return new_task(spec, report, before)


def new_task(spec, report, before):
    instance, paths = spec["instance"], spec["paths"]
    fields = ("folder", "unit", "unit_path")
    spare = instance["activation"]["spare"] if report["how"] == "side by side" else None
    onward = spare and {
        "endpoint": instance["endpoint"], "before": before["endpoint"],
        "spare": spare["endpoint"], "zone": 1 + randbelow(65535),
    }  # fmt: skip
    job = f"corral-job-{record.job_name(instance['name'])}.service"
    return {
        **{name: instance[name] for name in fields},
        "instance": instance["name"], "units": paths["units"], "state": paths["state"],
        "helper": paths["helper"], "keys": paths.get("keys"), "job": job,
        "from": report["from"], "to": instance["generation"], "how": report["how"], "kept": False,
        "boot_id": boot_id(), "invocation": invocation(instance),
        "before": before, "after": instance, "onward": onward, "report": report,
        "rekeyed": spec.get("rekeyed", True),
    }  # fmt: skip


def invocation(of):
    """Which start of its unit runs."""
    return show(of["unit"], "InvocationID")["InvocationID"]


def switch(task, spec, report):
    """The steps of one way to switch; any fault takes all of them back."""
    try:
        HOWS[task["how"]](task, spec, report)
        task["report"] = report
        task["proved"] = invocation(task)
        tasks.decide_to_keep(task)
    except FAULTS as fault:
        report["gate"] += list(getattr(fault, "rows", []))
        report["log"] += last_words(report, task)
        rollback.take_back(task, report, str(fault), refused=isinstance(fault, RefusedError))
        raise failed(report, report["reason"]) from fault
    keep_figures(spec["instance"], report)
    return rollback.end(task, report)


def last_words(report, task):
    """Of the server that was started last, if one was."""
    phases = [one["phase"] for one in report["phases"]]
    if not phases or phases[-1] not in STARTED:
        return ""
    with contextlib.suppress(*FAULTS):
        return journal_tail(show(task.get("started", task["unit"]), "InvocationID")["InvocationID"])
    return ""


def keep_figures(instance, report):
    try:
        keep_baseline(instance, report["gate"])
    except FAULTS as fault:
        report["reason"] = f"{report['reason']}\nits figures are no baseline yet: {fault}".strip()
