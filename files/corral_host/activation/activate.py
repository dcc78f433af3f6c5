"""Switch an instance to a generation, keep it if it passes the gate, else put the old one back."""

import contextlib
from secrets import randbelow

from corral_host.activation import (
    as_it_runs,
    in_place,
    journal,
    preconditions,
    record,
    rollback,
    side_by_side,
)
from corral_host.activation.activation import SIDE_BY_SIDE, Activation
from corral_host.activation.start_again import GoingDownError
from corral_host.activation.steps import RefusedError
from corral_host.checks.gate import keep_baseline
from corral_host.checks.ready import journal_tail
from corral_host.instance import history
from corral_host.instance.state import instance_state
from corral_host.system.commands import FAULTS, HostError, as_fault, say, show
from corral_host.system.locks import activate_lock, held, refuse_other_rollout

HOWS = {
    "first": in_place.switch_to,
    "in place": in_place.switch_to,
    SIDE_BY_SIDE: side_by_side.switch_to,
    preconditions.GOES_ON: as_it_runs.switch_to,
}
# Phases in which a server runs whose log may say why it failed.
STARTED = ("starting", "gate", "soak", "confirm")


def activate(spec, by, run=None):
    """Switch to a staged generation; returns the report. A raised fault carries it as ``answer``.

    ``run``: the id of the job's run, which tells its report from those of other runs.
    ``spec``: see Activation.
    """
    activation = Activation(spec, record.new_report(spec, by, run))
    try:
        return with_lock(activation)
    except GoingDownError:
        raise
    except FAULTS as fault:
        if getattr(fault, "answer", None):
            raise
        failed = activation.failed(str(fault))
        with contextlib.suppress(OSError):
            history.record(activation.folder, activation.report)
        raise failed from fault


def foresee(spec):
    """Predict how an activation would go now; changes nothing.

    ``how`` is None if something blocks it. ``faults`` has the reasons; ``obstacles`` has them as
    texts, for controllers of earlier versions.
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


def with_lock(activation):
    spec, plan, report = activation.spec, activation.plan, activation.report
    with contextlib.ExitStack() as held_until_the_end:
        with activation.phase("waiting for the lock"):
            lock, doing = activate_lock(activation.paths["state"]), f"activating {activation.name}"
            held_until_the_end.enter_context(held(lock, report["by"], doing))
            refuse_other_rollout(activation.paths["state"], spec["rollout"])
        rollback.settle_held(activation.folder)
        found = instance_state(plan, rekeyed=activation.rekeyed)
        report["from"] = found["installed_generation"]
        report["serving"] = report["from"] if found["active"] == "active" else None
        if found["serves"]:
            say(f"generation {activation.new} of {activation.name} serves already")
            report["outcome"] = "unchanged"
            return report
        with activation.phase("checking"):
            decide(activation)
        return switch(activation)


def decide(activation):
    """Choose how to switch, and from which generation. Raises HostError with all that blocks it."""
    before = preconditions.served_before(activation.plan)
    faults, rows = preconditions.findings(activation.spec)
    if faults:
        raise HostError("\n".join(map(str, faults)))
    how = preconditions.decide(activation.spec, before, rows)
    activation.report.update({"how": how, "from": before and before["generation"]})
    activation.previous = before
    activation.invocation = invocation(activation.unit)
    if how == SIDE_BY_SIDE:
        activation.onward = {
            "endpoint": activation.plan["endpoint"], "before": before["endpoint"],
            "spare": activation.plan["activation"]["spare"]["endpoint"],
            "zone": 1 + randbelow(65535),
        }  # fmt: skip


def invocation(unit):
    """systemd's id of the unit's current start."""
    return show(unit, "InvocationID")["InvocationID"]


def switch(activation):
    """Run the steps of the chosen switch; any fault reverts all of them."""
    report = activation.report
    try:
        HOWS[activation.how](activation)
        activation.proved = invocation(activation.unit)
        journal.decide_to_keep(activation)
    except FAULTS as fault:
        report["gate"] += list(getattr(fault, "rows", []))
        report["log"] += log_tail(activation)
        refused = isinstance(fault, RefusedError)
        rollback.revert_and_record(activation, str(fault), refused=refused)
        raise activation.failed(report["reason"]) from fault
    keep_figures(activation)
    return rollback.finish(activation)


def log_tail(activation):
    """End of the log of the server that was started last; empty if none was started."""
    phases = [one["phase"] for one in activation.report["phases"]]
    if not phases or phases[-1] not in STARTED:
        return ""
    with contextlib.suppress(*FAULTS):
        return journal_tail(invocation(activation.started or activation.unit))
    return ""


def keep_figures(activation):
    report = activation.report
    try:
        keep_baseline(activation.plan, report["gate"])
    except FAULTS as fault:
        report["reason"] = f"{report['reason']}\nits figures are no baseline yet: {fault}".strip()
