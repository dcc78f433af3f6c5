"""The gateways of an inventory, as activations see them: who is behind which alias, and drains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from corral.activation import NoGateway, Traffic
from corral.errors import CorralError
from corral.gateway import control
from corral.gateway.control import LastServerError, ServerState
from corral.gateway.fleet import gateways_of, instance_keys
from corral.gateway.plan import GatewayPlan, server_name
from corral.inventory import Host
from corral.keys import KeyFile
from corral.plan import InstancePlan
from corral.planning import Planner
from corral.waves import Pools

Say = Callable[[str], None]


@dataclass(frozen=True)
class Gateways:
    """Drains at every gateway that an instance is behind.

    + hosts: all of one inventory; + plans: of those that are gateways, by name
    """

    hosts: Sequence[Host]
    plans: Mapping[str, GatewayPlan]
    say: Say

    @contextmanager
    def away(self, server: str, instance: InstancePlan, lease_seconds: int) -> Iterator[bool]:
        """Send ``server`` nothing within the block; False where a gateway still does, or none is.

        Raises CorralError, also when a server that served before does not afterwards.
        """
        before = self._before(server)
        drained = [self._drain(name, server, instance, lease_seconds) for name in before]
        try:
            yield bool(drained) and all(drained)
        finally:
            back = {name: control.ready(self._host(name), server) for name in before}
        for name, serves in back.items():
            if before[name].serves and not serves:
                what = f"{server} does not pass this gateway's checks any more"
                step = f"corral verify {name}, then corral logs {server}"
                raise CorralError(name, what, step)

    def _before(self, server: str) -> dict[str, ServerState]:
        """Gateway -> what it says of a server; one that is yet to learn of it sends it nothing."""
        found = {}
        for gateway in gateways_of(server, self.hosts, self.plans):
            known = {row.server: row for row in control.state(gateway)}
            if server_name(server) in known:
                found[gateway.name] = known[server_name(server)]
        return found

    def _drain(self, gateway: str, server: str, instance: InstancePlan, lease_seconds: int) -> bool:
        limit = instance.activation.drain_seconds
        try:
            control.drain(self._host(gateway), server, lease_seconds, limit_seconds=limit)
        except LastServerError as error:
            self.say(f"{error.where}: {error.what}")
            return False
        return True

    def _host(self, name: str) -> Host:
        return next(host for host in self.hosts if host.name == name)


def traffic(hosts: Sequence[Host], planner: Planner, say: Say) -> tuple[Traffic, Pools]:
    """What keeps requests from an instance while it changes, and who stands in for it.

    + hosts: all of one inventory; + say: told what a gateway could not do. Raises CorralError.
    """
    plans = planner.gateways(hosts)
    if not plans:
        return NoGateway(), {}
    pools: dict[str, list[str]] = {}
    for pool in (pool for plan in plans.values() for pool in plan.pools):
        members = [member.name.rpartition("/")[0] for member in pool.members]
        pools[pool.alias] = list(dict.fromkeys([*pools.get(pool.alias, ()), *members]))
    return Gateways(hosts, plans, say), pools


def key_of(hosts: Sequence[Host], planner: Planner) -> Callable[[Host, str], KeyFile]:
    """What gives the keys of an instance, those of its gateways among them."""
    plans = planner.gateways(hosts)
    return lambda host, instance: instance_keys(host, instance, hosts, plans)
