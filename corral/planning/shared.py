"""Decisions over all hosts of a fleet: builds of releases, and gateways.

A host that cannot be read does not stop the plan of another. A decision that could differ with it
is reported, or refused where it could cut off clients.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.monitoring.scrape import LeftOut, Scraped, Server, Target, targets
from corral.plan.fleet import Build
from corral.plan.gateway import GatewayPlan
from corral.plan.monitoring import MonitoringPlan
from corral.planning.builders import builds
from corral.planning.clients import InFront
from corral.planning.gateway import Known, Served, gateway_plan
from corral.planning.gateways import gateways_of, served
from corral.planning.grafana import with_grafana
from corral.planning.planner import Planner
from corral.planning.prometheus import servers, with_prometheus

T = TypeVar("T")
Mistakes = Mapping[str, CorralError]


class Shared:
    """Decisions over all hosts of an inventory, made on first use.

    + hosts: all hosts with a usable name; + mistakes: host -> the mistake in its data
    + reached: names of hosts that can build in this run; all if None
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
        """Release key -> its build, among the hosts that can be planned."""
        return self._builds

    @cached_property
    def _builds(self) -> Mapping[str, Build]:
        releases = self._releases[0]
        return builds([host for host in self._hosts if host.name in releases], releases)

    @property
    def without_builds(self) -> Mistakes:
        """Hosts whose releases are unknown; ``builds`` leaves them out."""
        return self._releases[1]

    @cached_property
    def _releases(self) -> tuple[dict[str, Any], Mistakes]:
        taking_part = [h for h in self._hosts if self._reached is None or h.name in self._reached]
        return _each(taking_part, self._planner.releases, self.mistakes)

    @property
    def gateways(self) -> Mapping[str, GatewayPlan]:
        """Host -> its gateway's plan, from the hosts that can be read.

        Where ``unread`` is not empty, these plans must not be deployed: see ``gateway``.
        """
        return self._gateways[0]

    @property
    def gateway_mistakes(self) -> Mistakes:
        """Host -> why its gateway cannot be planned."""
        return self._gateways[1]

    @property
    def unread(self) -> Mistakes:
        """Hosts whose aliases are unknown."""
        return self._served[1]

    def gateway(self, host: Host) -> GatewayPlan | None:
        """The gateway of a host, to deploy. Raises CorralError where some host cannot be read."""
        if not self._is_gateway(host):
            return None
        plans, mistakes = self._gateways
        for name, mistake in self.unread.items():
            if name != host.name:
                what = f"{name} may be a member and cannot be read: {mistake.where}: {mistake.what}"
                raise CorralError(f"{host.name}: gateway", what, mistake.next_step)
        if host.name in mistakes:
            raise mistakes[host.name]
        return plans.get(host.name)

    def gateways_of(self, host: Host) -> Mapping[str, GatewayPlan]:
        """All gateways, to find those in front of the instances of a host.

        Raises CorralError where a gateway that may be in front of them cannot be read: the deploy
        would remove its key from the host.
        """
        mine = self._served[0].get(host.name, {})
        found = [mine.get(f"{host.name}/{spec.name}") for spec in host.spec.instances]
        named = {one and one.alias for one in found}
        for gateway in self._hosts:
            mistake = self._gateways[1].get(gateway.name)
            spec = gateway.spec.gateway
            if mistake and named and (spec is None or named & spec.aliases.keys()):
                what = f"{gateway.name} may be its gateway and cannot be read: {mistake.what}"
                raise CorralError(host.name, f"{what} ({mistake.where})", mistake.next_step)
        return self.gateways

    def in_front(self, host: Host) -> InFront:
        """The gateways in front of each instance of a host; asked, raises as ``gateways_of``."""

        def of(instance: str) -> list[Host]:
            return gateways_of(f"{host.name}/{instance}", self._hosts, self.gateways_of(host))

        return of

    def scraped(self, *, by: str = "") -> list[Target | LeftOut]:
        """What a Prometheus scrapes of all hosts, and what it cannot reach.

        + by: the host of that Prometheus; its own loopback is reachable then
        """
        found: list[Target | LeftOut] = []
        for host in self._hosts:
            mistake = self._unscraped.get(host.name)
            if mistake:
                left = LeftOut(name=host.name, why=mistake.what, next_step=mistake.next_step)
                found.append(left)
                continue
            one = Scraped(servers=self._servers[0][host.name], gateway=self.gateways.get(host.name))
            found += targets(host, one, by=by)
        return found

    def monitoring(self, host: Host, plan: MonitoringPlan | None) -> MonitoringPlan | None:
        """``plan`` with the Prometheus of a host.

        Raises CorralError where some host cannot be read: nobody would watch it any more.
        """
        spec = host.spec.monitoring.prometheus if host.spec.monitoring else None
        if plan is None or spec is None:
            return plan
        for name, mistake in self._unscraped.items():
            what = f"{name} is to be watched and cannot be read: {mistake.where}: {mistake.what}"
            raise CorralError(f"{host.name}: monitoring.prometheus", what, mistake.next_step)
        scraped = [one for one in self.scraped(by=host.name) if isinstance(one, Target)]
        planner = self._planner
        paths, folder = planner.paths, planner.templates
        made = with_prometheus(plan, host, spec, scraped, paths=paths, templates=folder)
        shown = host.spec.monitoring.grafana if host.spec.monitoring else None
        if shown is None:
            return made
        return with_grafana(
            made, host, shown, spec, catalog=planner.catalog, paths=paths, templates=folder
        )

    @property
    def _unscraped(self) -> Mistakes:
        """Hosts whose servers or gateways are unknown."""
        return {**self.mistakes, **self._servers[1], **self.gateway_mistakes}

    @cached_property
    def _servers(self) -> tuple[dict[str, tuple[Server, ...]], Mistakes]:
        catalog = self._planner.catalog
        return _each(self._hosts, lambda host: servers(host, catalog), self.mistakes)

    @cached_property
    def _served(self) -> tuple[dict[str, dict[str, Served]], Mistakes]:
        def of(host: Host) -> dict[str, Served]:
            return served([host], self._planner.catalog)

        by_host, mistakes = _each(self._hosts, of, self.mistakes)
        # Includes hosts with an unusable name.
        return by_host, {**self.mistakes, **mistakes}

    def _is_gateway(self, host: Host) -> bool:
        has_mistake = host.name in self.mistakes and bool(host.data.get("gateway"))
        return has_mistake or host.spec.gateway is not None

    @cached_property
    def _gateways(self) -> tuple[dict[str, GatewayPlan], Mistakes]:
        """Plans, and mistakes of gateways, by host."""
        if not any(map(self._is_gateway, self._hosts)):
            return {}, {}
        by_host, unread = self._served
        known = Known(
            hosts=tuple(host for host in self._hosts if host.name in by_host),
            served={name: one for named in by_host.values() for name, one in named.items()},
            partial=bool(unread),
        )

        def of(host: Host) -> GatewayPlan | None:
            if self._is_gateway(host) and host.spec.gateway is None:
                # Its aliases are unknown.
                raise self.mistakes[host.name]
            return gateway_plan(host, known, folder=self._planner.paths.gateway)

        plans, mistakes = _each(self._hosts, of, {})
        return {name: plan for name, plan in plans.items() if plan}, mistakes


def _each(
    hosts: Sequence[Host], work: Callable[[Host], T], known: Mistakes
) -> tuple[dict[str, T], Mistakes]:
    """Host -> result of ``work``, and host -> why it has none."""
    results: dict[str, T] = {}
    mistakes: dict[str, CorralError] = {}
    for host in hosts:
        try:
            if host.name in known:
                raise known[host.name]
            results[host.name] = work(host)
        except CorralError as error:
            mistakes[host.name] = error
    return results, mistakes
