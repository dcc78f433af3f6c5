"""The keys of this run: from the controller's store, made there for what no host has yet."""

from __future__ import annotations

from functools import cache

from corral_shared.text import printable
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.state import State

from corral.errors import CorralError
from corral.host.state import HostState
from corral.inventory.hosts import Host
from corral.keys.on_hosts import held_names, names_in
from corral.keys.proof import check_document
from corral.plan.host import HostPlan
from corral.planning.gateways import instance_keys, needed_keys, refuse_keys
from corral.store.api_keys import KeyFile, make_missing
from deploys.run import fleet, state


def keys(this: Host, plan: HostPlan, found: HostState) -> dict[str, KeyFile]:
    """Instance name -> its keys; none for a host that does not tell what it has.

    Those of its gateway are in the store afterwards. Raises CorralError, of all lost keys at once.
    """
    if not found.readable:
        return {}

    everyone, gateways = fleet().everyone, fleet().gateways_of(this)

    def held(host: Host) -> frozenset[str]:
        return names_in(found) if host.name == this.name else _asked(state(), host.name)

    make_missing(needed_keys(this, everyone, gateways), held)
    for instance in plan.instances:
        refuse_keys(this, instance.name, instance.kind, everyone, gateways)
    return {i.name: instance_keys(this, i.name, everyone, gateways) for i in plan.instances}


def proof(this: Host, plan: HostPlan) -> str:
    """The plan as checks take it, with digests of the store's keys. Raises PyinfraError."""
    try:
        return check_document(this, plan, fleet().everyone, fleet().gateways_of(this))
    except CorralError as error:
        raise PyinfraError(printable(error)) from error


@cache
def _asked(_: State, name: str) -> frozenset[str]:
    """Of a gateway in front of a host, once a run."""
    return held_names(next(host for host in fleet().everyone if host.name == name))
