"""What a gateway serves while some of its servers have changed and others have not. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from corral_shared.gateway_lines import Line, base

from corral.plan.gateway import GatewayPlan, Member, Pool

# Whether ``host/instance`` serves its plan, as far as is known.
Settled = Callable[[str], bool]


def plan_as_far(planned: GatewayPlan, known: Sequence[Line], settled: Settled) -> GatewayPlan:
    """The plan, with each server that has not changed yet where the gateway finds it now.

    + known: servers of the configuration that it has
    """
    pools = tuple(_as_far(pool, planned, known, settled) for pool in planned.pools)
    return planned.model_copy(update={"pools": pools})


def _as_far(pool: Pool, planned: GatewayPlan, known: Sequence[Line], settled: Settled) -> Pool:
    found: list[Member] = []
    for member in pool.members:
        found += [member] if settled(member.name) else _now(member, pool, known)
    # One that changes its alias stays where its clients are until it has changed.
    leaving = [m for other in planned.pools if other is not pool for m in other.members]
    for member in leaving:
        if not settled(member.name):
            found += _now(member, pool, known)
    # A pool that nobody knows yet has nobody to spare.
    return pool.model_copy(update={"members": tuple(found) or pool.members})


def _now(member: Member, pool: Pool, known: Sequence[Line]) -> list[Member]:
    """Where the gateway looks for a server; in two places while it moves."""
    found = []
    for line in known:
        if line["pool"] == pool.name and base(line["server"]) == member.server:
            address, _, port = line["place"].rpartition(":")
            here = {"server": line["server"], "address": address.strip("[]"), "port": int(port)}
            found.append(member.model_copy(update=here))
    return found
