"""A start with dummy weights: the real arguments on the real GPUs, before weights are fetched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter
from pyinfra import host
from pyinfra.api import operation
from pyinfra.api.host import Host

from corral.errors import CorralError
from corral.host.reading import as_answer
from corral.host.trial import Trial
from corral.plan.host import HostPlan
from corral.plan.instance import InstancePlan
from corral.sources.hub_token import operator_token
from operations import Commands, job
from operations.current_operator import CurrentOperator, operator_document
from operations.messages import complain, inform

_TRIAL = TypeAdapter(Trial)


@operation()
def runs(
    plan: HostPlan, *, waiting: Sequence[InstancePlan], operator: CurrentOperator | None = None
) -> Commands:
    """Start instances with dummy weights, one after another, until each answers; then stop it.

    The host fetches the configuration files of the models for that. It skips a run for which GPUs
    or memory have no room beside what runs, and one whose result it has.

    + waiting: those that do not serve their planned generation; + operator: the current operator
    """
    tried = [instance for instance in waiting if instance.trial]
    if not tried:
        host.noop("no waiting instance can start without its weights")
        return
    for instance in tried:
        shards = [shard for shard in plan.shards if shard.path in instance.shards]
        token = operator_token() if any(shard.gated for shard in shards) else None
        spec = {
            "paths": plan.paths.model_dump(mode="json"),
            "instance": instance.model_dump(mode="json"),
            "shards": [shard.model_dump(mode="json") for shard in shards],
            **operator_document(operator),
        }
        name = f"trial-{instance.name}"
        yield from job.run(plan.paths.helper, name, "trial", spec, token=token, then=report)


def report(of: Host, answer: dict[str, Any]) -> bool:
    """Print the result of a trial; False for an answer that is none."""
    try:
        found = as_answer(_TRIAL, answer, where=of.name)
    except CorralError as error:
        for line in str(error).splitlines():
            complain(line, of)
        return False
    inform(found.line(), of)
    return True
