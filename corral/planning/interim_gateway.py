"""The plan of a gateway during a rollout, while only some of its servers have changed. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from corral_shared.gateway_lines import Line, base

from corral.plan.gateway import GatewayPlan, Member, Pool

# Whether ``host/instance`` serves its plan, as far as is known.
Settled = Callable[[str], bool]


def interim_plan(planned: GatewayPlan, known: Sequence[Line], settled: Settled) -> GatewayPlan:
    """The plan, with each server that has not changed yet at its current address.

    + known: server lines of the current configuration
    """
    pools = tuple(_interim_pool(pool, planned, known, settled) for pool in planned.pools)
    return planned.model_copy(update={"pools": pools})


def _interim_pool(
    pool: Pool, planned: GatewayPlan, known: Sequence[Line], settled: Settled
) -> Pool:
    members: list[Member] = []
    for member in pool.members:
        members += [member] if settled(member.name) else _current(member, pool, known)
    # A server that changes its alias stays in the pool of its clients until it has changed.
    leaving = [m for other in planned.pools if other is not pool for m in other.members]
    for member in leaving:
        if not settled(member.name):
            members += _current(member, pool, known)
    # A new pool has no current members to keep.
    return pool.model_copy(update={"members": tuple(members) or pool.members})


def _current(member: Member, pool: Pool, known: Sequence[Line]) -> list[Member]:
    """A server at its current address; at two addresses while it moves."""
    found = []
    for line in known:
        if line["pool"] == pool.name and base(line["server"]) == member.server:
            address, _, port = line["place"].rpartition(":")
            here = {"server": line["server"], "address": address.strip("[]"), "port": int(port)}
            found.append(member.model_copy(update=here))
    return found
