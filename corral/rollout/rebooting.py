"""Reboot a host behind gateways without failed requests: all its servers are drained meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from corral.errors import CorralError
from corral.plan.instance import InstancePlan
from corral.rollout.pausing import Gateways


@contextmanager
def drained_host(
    gateways: Gateways, host: str, instances: Sequence[InstancePlan]
) -> Iterator[None]:
    """Drain the servers of a host within the block, then wait until gateways accept them again.

    The wait keeps the next host of a deploy from rebooting before this one serves.
    Raises CorralError where an alias would lose its last server, and the host must not reboot; and
    where a server that got requests before does not get any afterwards.
    """
    by_server = {f"{host}/{one.name}": one for one in instances}
    gateways.refuse_last(list(by_server), together=True)
    drained = []
    with ExitStack() as stack:
        for server, instance in by_server.items():
            limit = instance.activation.drain_seconds
            drained.append(stack.enter_context(gateways.drained(server, limit)))
        yield
    for one in drained:
        limit = by_server[one.server].ready_timeout_seconds
        if one.served and not gateways.after(one.server, limit_seconds=limit):
            what = f"does not serve behind its gateways {limit} s after the reboot of {host}"
            raise CorralError(one.server, what, f"see `corral logs {one.server}`")
