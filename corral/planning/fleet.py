"""The plan of a fleet, and selections of it for one command."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.monitoring.scrape import LeftOut, Target
from corral.plan.fleet import Build, FleetPolicy
from corral.plan.gateway import GatewayPlan
from corral.plan.host import HostPlan
from corral.planning.builders import built_by
from corral.planning.clients import InFront, nobody
from corral.planning.gateways import pools
from corral.planning.planner import Planner, packages
from corral.planning.shared import Mistakes, Shared
from corral.planning.swarm import swarm_plan
from corral.planning.waves import Pools, Wave, fleet_policy, waves

Pair = tuple[Host, HostPlan]


@dataclass(frozen=True)
class _Part:
    """The selected part of a host: some instances, and its gateway or not."""

    instances: frozenset[str]
    gateway: bool


@dataclass(frozen=True)
class FleetPlan:
    """The plans of the hosts of an inventory. A host is planned on first use.

    + hosts: selected hosts, in the order of the inventory; + everyone: all hosts
    + planned: returns the plan of a host, the same each time, without its gateway where ``shared``
      has it; raises CorralError
    """

    hosts: tuple[Host, ...]
    everyone: tuple[Host, ...]
    planned: Callable[[Host], HostPlan]
    shared: Shared | None = None
    parts: Mapping[str, _Part] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the selected hosts."""
        return tuple(host.name for host in self.hosts)

    def host(self, name: str) -> Host:
        """A selected host. Raises CorralError."""
        host = next((host for host in self.hosts if host.name == name), None)
        if host is None:
            raise CorralError(name, "is not a host of this fleet", "see inventories/")
        return host

    def plan(self, name: str) -> HostPlan:
        """The plan of a host, reduced to the selection. Raises CorralError for its mistakes."""
        host = self.host(name)
        plan, part = self.planned(host), self.parts.get(name)
        gateway, monitoring = None, plan.monitoring
        if self.shared:
            monitoring = self.shared.monitoring(host, monitoring)
        if part is None or part.gateway:
            gateway = self.shared.gateway(host) if self.shared else plan.gateway
        kept = tuple(i for i in plan.instances if part is None or i.name in part.instances)
        changed = {"instances": kept, "gateway": gateway, "monitoring": monitoring}
        return plan.model_copy(update=changed)

    def pairs(self) -> list[Pair]:
        """The selected hosts with their plans. Raises CorralError at the first mistake."""
        return [(host, self.plan(host.name)) for host in self.hosts]

    def select(self, names: Collection[str], *, gateways: Collection[str] = ()) -> FleetPlan:
        """Select by HOST, INSTANCE or HOST/INSTANCE; everything without names.

        A host name selects its gateway, too. + gateways: more hosts whose gateway is selected
        """
        if not names and not gateways:
            return self
        parts = {host.name: self._part(host, names, gateways) for host in self.hosts}
        hosts = (h for h in self.hosts if parts[h.name].instances or parts[h.name].gateway)
        return replace(self, hosts=tuple(hosts), parts=parts)

    def _part(self, host: Host, names: Collection[str], gateways: Collection[str]) -> _Part:
        current = self.parts.get(host.name)
        known = current.instances if current else {*host.instance_names}
        chosen = {i for i in known if not {host.name, i, f"{host.name}/{i}"}.isdisjoint(names)}
        gateway = host.name in names or host.name in gateways
        return _Part(frozenset(chosen), gateway and (current is None or current.gateway))

    @property
    def builds(self) -> Mapping[str, Build]:
        """Release key -> its build: builder and receivers."""
        return self.shared.builds if self.shared else {}

    @property
    def gateways(self) -> Mapping[str, GatewayPlan]:
        """Host -> its gateway's plan, for hosts that can be read."""
        return self.shared.gateways if self.shared else {}

    def whole_gateways(self) -> Mapping[str, GatewayPlan]:
        """Like ``gateways``, but raises CorralError where a host or gateway cannot be read."""
        if self.shared:
            for mistake in (*self.shared.unread.values(), *self.shared.gateway_mistakes.values()):
                raise mistake
        return self.gateways

    def gateways_of(self, host: Host) -> Mapping[str, GatewayPlan]:
        """Like ``gateways``, for finding those of a host. Raises CorralError: see ``Shared``."""
        return self.shared.gateways_of(host) if self.shared else {}

    def scraped(self) -> list[Target | LeftOut]:
        """What a Prometheus on no host of the fleet scrapes, and what it cannot reach."""
        return self.shared.scraped() if self.shared else []

    def in_front(self, host: Host) -> InFront:
        """The gateways in front of each instance of a host, for planning it alone."""
        return self.shared.in_front(host) if self.shared else nobody

    @property
    def unread(self) -> Mistakes:
        """Hosts that cannot be read, so that decisions over all hosts are incomplete."""
        if self.shared is None:
            return {}
        return {**self.shared.without_builds, **self.shared.unread}

    @property
    def gateway_mistakes(self) -> Mistakes:
        """Gateways that cannot be planned."""
        return self.shared.gateway_mistakes if self.shared else {}

    @property
    def pools(self) -> Pools:
        """The hosts behind each alias of each gateway."""
        return pools(self.gateways)

    def waves(self, changing: Collection[str] | None = None) -> tuple[Wave, ...]:
        """The waves of a rollout; see ``corral.planning.waves``. Raises CorralError."""
        return waves(self.serving, self.policy, self.pools, changing)

    @property
    def policy(self) -> FleetPolicy:
        """The rollout policy. Raises CorralError where hosts disagree."""
        return fleet_policy(self._valid)

    @property
    def serving(self) -> tuple[str, ...]:
        """All hosts of the inventory that run instances, without those with a mistake."""
        return tuple(host.name for host in self._valid if host.spec.instances)

    @property
    def _valid(self) -> list[Host]:
        mistakes = self.shared.mistakes if self.shared else {}
        return [host for host in self.everyone if host.name not in mistakes]


def plan_fleet(
    hosts: Sequence[Host],
    planner: Planner,
    *,
    mistakes: Mistakes | None = None,
    reached: Collection[str] | None = None,
) -> FleetPlan:
    """Plan the hosts of one inventory; a host with a mistake does not affect the others.

    + mistakes: host -> the mistake in its data, from ``read_inventory``
    + reached: hosts that can build releases in this run; all if None
    """
    known, made = dict(mistakes or {}), dict[str, HostPlan]()
    shared = Shared(hosts, planner, known, reached)

    def planned(host: Host) -> HostPlan:
        if host.name in known:
            raise known[host.name]
        if host.name not in made:
            plan = planner.plan_host(host, shared.in_front(host))
            builds = built_by(host, shared.builds)
            found = (*packages(host, (*plan.releases, *builds)), *plan.packages)
            more = tuple(dict.fromkeys(found))
            swarm = swarm_plan(host, hosts, without=known)
            decided = {"builds": builds, "packages": more, "swarm": swarm}
            made[host.name] = plan.model_copy(update=decided)
        return made[host.name]

    return FleetPlan(tuple(hosts), tuple(hosts), planned, shared)


def fleet_of(pairs: Sequence[Pair], everyone: Sequence[Host] = ()) -> FleetPlan:
    """A fleet of plans that are known already, such as those stored on hosts."""
    plans = {host.name: plan for host, plan in pairs}
    hosts = tuple(host for host, _ in pairs)
    return FleetPlan(hosts, tuple(everyone) or hosts, lambda host: plans[host.name])
