"""Instances: keys, generations, activation, verification."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from pyinfra import host, state
from pyinfra.api import operation
from pyinfra.api.command import QuoteString, StringCommand

from corral.keys import KeyFile
from corral.plan import INSTANCE_FILES, HostPlan, InstancePlan
from corral.verification import failures, subjects
from facts.instance import Checks
from operations import Commands, job


@operation()
def keys(changed: Sequence[InstancePlan], *, helper: str, files: Mapping[str, KeyFile]) -> Commands:
    """Put api-key files on the host; their text travels on standard input only.

    + changed: instances whose file differs; + files: instance name -> keys.
    """
    if not changed:
        host.noop("all key files are current")
        return
    for instance in changed:
        target = json.dumps({"key_path": instance.key_path})
        yield StringCommand(
            "python3", QuoteString(helper), "key", QuoteString(target),
            _stdin=files[instance.name].text,
        )  # fmt: skip


@operation()
def generations(missing: Sequence[InstancePlan], *, helper: str) -> Commands:
    """Write generations to the host; no service is touched.

    + missing: instances whose planned generation is not there.
    """
    if not missing:
        host.noop("all generations are staged")
        return
    for instance in missing:
        document = instance.model_dump_json()
        yield StringCommand("python3", QuoteString(helper), "stage", _stdin=document)


@operation()
def activate(waiting: Sequence[InstancePlan], *, helper: str) -> Commands:
    """Switch instances to their planned generation; the host reverts one that fails its gate.

    + waiting: instances that do not serve their planned generation with their current keys.
    """
    if not waiting:
        host.noop("all instances serve their planned generation")
        return
    for instance in waiting:
        spec = instance.model_dump(mode="json", exclude=set(INSTANCE_FILES))
        yield from job.run(helper, f"activate-{instance.name}", "activate", spec)


@operation()
def verify(plan: HostPlan) -> Commands:
    """Compare running instances, and the gateway, with the plan; never a change.

    + plan: what the host shall be.
    """
    if not subjects(plan) or not state.is_executing:
        host.noop("verified once everything is in place")
        return
    checks = host.get_fact(Checks, helper=plan.paths.helper, plan_json=plan.to_helper())
    failed = failures(plan, checks)
    if failed:
        next_step = f"`corral logs {plan.host}` says why; `corral verify {plan.host}` checks again"
        yield from job.fail("\n".join([*failed, f"  Next: {next_step}"]))
        return
    host.noop(f"{len(checks)} checks passed")
