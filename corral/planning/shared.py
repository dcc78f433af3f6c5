"""What the hosts of a fleet share: who builds which release, and the gateways in front of them.

A host that cannot be read keeps no other from being planned. What would be another with it is
told, or refused where that would take something from clients.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.plan.fleet import Build
from corral.plan.gateway import GatewayPlan
from corral.planning.builders import builds
from corral.planning.gateway import Known, Served, gateway_plan
from corral.planning.gateways import served
from corral.planning.planner import Planner

T = TypeVar("T")
Mistakes = Mapping[str, CorralError]


class Shared:
    """Decided from all hosts of an inventory, once it is asked for.

    + hosts: all that have a usable name; + mistakes: host -> what is wrong in its data
    + reached: names of the hosts that can build in this run; all if None
    """

    def __init__(
        self,
        hosts: Sequence[Host],
        planner: Planner,
        mistakes: Mistakes,
        reached: Collection[str] | None = None,
    ) -> None:
        self._hosts = tuple(hosts)
        self._planner = planner
        self.mistakes = dict(mistakes)
        self._reached = reached

    @property
    def builds(self) -> Mapping[str, Build]:
        """Key -> who builds a release and who gets it, among the hosts that can be planned."""
        return self._builds

    @cached_property
    def _builds(self) -> Mapping[str, Build]:
        found = self._releases[0]
        return builds([host for host in self._hosts if host.name in found], found)

    @property
    def without_builds(self) -> Mistakes:
        """Hosts of which it is not known what they run, so that ``builds`` leaves them out."""
        return self._releases[1]

    @cached_property
    def _releases(self) -> tuple[dict[str, Any], Mistakes]:
        taking_part = [h for h in self._hosts if self._reached is None or h.name in self._reached]
        return _each(taking_part, self._planner.releases, self.mistakes)

    @property
    def gateways(self) -> Mapping[str, GatewayPlan]:
        """Host -> what it serves for those that can be read: who is behind which gateway.

        Where ``unread`` is not empty, a gateway must not become that: see ``gateway``.
        """
        return self._gateways[0]

    @property
    def gateway_mistakes(self) -> Mistakes:
        """Why gateways cannot be planned at all, by host."""
        return self._gateways[1]

    @property
    def unread(self) -> Mistakes:
        """Hosts of which it is not known which aliases they serve."""
        return self._served[1]

    def gateway(self, host: Host) -> GatewayPlan | None:
        """What a host serves for others. Raises CorralError where not all of them can be read."""
        if not self._is_gateway(host):
            return None
        plans, mistakes = self._gateways
        for name, mistake in self.unread.items():
            if name != host.name:
                what = (
                    f"{name} may be behind it, and cannot be read: {mistake.where}: {mistake.what}"
                )
                raise CorralError(f"{host.name}: gateway", what, mistake.next_step)
        if host.name in mistakes:
            raise mistakes[host.name]
        return plans.get(host.name)

    def gateways_of(self, host: Host) -> Mapping[str, GatewayPlan]:
        """All gateways, to tell which of them the instances of a host are behind.

        Raises CorralError where one that may be in front of them cannot be read: the host would
        take its key away from it.
        """
        mine = self._served[0].get(host.name, {})
        found = [mine.get(f"{host.name}/{spec.name}") for spec in host.spec.instances]
        named = {one and one.alias for one in found}
        for gateway in self._hosts:
            mistake = self._gateways[1].get(gateway.name)
            spec = gateway.spec.gateway
            if mistake and named and (spec is None or named & spec.aliases.keys()):
                what = f"{gateway.name} may be in front of it, and cannot be read: {mistake.what}"
                raise CorralError(host.name, f"{what} ({mistake.where})", mistake.next_step)
        return self.gateways

    @cached_property
    def _served(self) -> tuple[dict[str, dict[str, Served]], Mistakes]:
        def of(host: Host) -> dict[str, Served]:
            return served([host], self._planner.catalog)

        found, mistakes = _each(self._hosts, of, self.mistakes)
        # Also of hosts whose very name cannot be used.
        return found, {**self.mistakes, **mistakes}

    def _is_gateway(self, host: Host) -> bool:
        wrong = host.name in self.mistakes and bool(host.data.get("gateway"))
        return wrong or host.spec.gateway is not None

    @cached_property
    def _gateways(self) -> tuple[dict[str, GatewayPlan], Mistakes]:
        """Plans, and mistakes of gateways themselves, by host."""
        if not any(map(self._is_gateway, self._hosts)):
            return {}, {}
        found, unread = self._served
        known = Known(
            hosts=tuple(host for host in self._hosts if host.name in found),
            served={name: one for named in found.values() for name, one in named.items()},
            partial=bool(unread),
        )

        def of(host: Host) -> GatewayPlan | None:
            if self._is_gateway(host) and host.spec.gateway is None:
                # Nobody knows of what.
                raise self.mistakes[host.name]
            return gateway_plan(host, known, folder=self._planner.paths.gateway)

        plans, mistakes = _each(self._hosts, of, {})
        return {name: plan for name, plan in plans.items() if plan}, mistakes


def _each(
    hosts: Sequence[Host], work: Callable[[Host], T], known: Mistakes
) -> tuple[dict[str, T], Mistakes]:
    """What becomes of each host, and why of others nothing does."""
    found: dict[str, T] = {}
    mistakes: dict[str, CorralError] = {}
    for host in hosts:
        try:
            if host.name in known:
                raise known[host.name]
            found[host.name] = work(host)
        except CorralError as error:
            mistakes[host.name] = error
    return found, mistakes
