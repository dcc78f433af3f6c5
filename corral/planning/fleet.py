"""The plan of a fleet, and the parts of it that a command works on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.plan.fleet import Build, FleetPolicy
from corral.plan.gateway import GatewayPlan
from corral.plan.host import HostPlan
from corral.planning.builders import built_by
from corral.planning.gateways import pools
from corral.planning.planner import Planner
from corral.planning.shared import Mistakes, Shared
from corral.planning.waves import Pools, Wave, fleet_policy, waves

Pair = tuple[Host, HostPlan]


@dataclass(frozen=True)
class _Part:
    """What of a host was selected: these instances of it, and whether its gateway."""

    instances: frozenset[str]
    gateway: bool


@dataclass(frozen=True)
class FleetPlan:
    """What the hosts of an inventory will be. A host is planned when it is first asked for.

    + hosts: those of this part, in the order of the inventory; + everyone: all of it
    + planned: gives the plan of a host, the same each time, where ``shared`` is given without
      its gateway; raises CorralError
    """

    hosts: tuple[Host, ...]
    everyone: tuple[Host, ...]
    planned: Callable[[Host], HostPlan]
    shared: Shared | None = None
    parts: Mapping[str, _Part] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the hosts of this part."""
        return tuple(host.name for host in self.hosts)

    def host(self, name: str) -> Host:
        """A host of this part. Raises CorralError."""
        found = next((host for host in self.hosts if host.name == name), None)
        if found is None:
            raise CorralError(name, "is no host of this fleet", "see inventories/")
        return found

    def plan(self, name: str) -> HostPlan:
        """The plan of a host, narrowed to this part. Raises CorralError, also for a mistake."""
        host = self.host(name)
        plan, part = self.planned(host), self.parts.get(name)
        gateway = None
        if part is None or part.gateway:
            gateway = self.shared.gateway(host) if self.shared else plan.gateway
        kept = tuple(i for i in plan.instances if part is None or i.name in part.instances)
        return plan.model_copy(update={"instances": kept, "gateway": gateway})

    def pairs(self) -> list[Pair]:
        """All hosts with their plans. Raises CorralError at the first mistake."""
        return [(host, self.plan(host.name)) for host in self.hosts]

    def select(self, names: Collection[str], *, gateways: Collection[str] = ()) -> FleetPlan:
        """The part that names fit: HOST, INSTANCE or HOST/INSTANCE; all without names.

        A host that is named itself comes with its gateway. + gateways: hosts of which the gateway
        is part beside what is named
        """
        if not names and not gateways:
            return self
        parts = {host.name: self._part(host, names, gateways) for host in self.hosts}
        hosts = (h for h in self.hosts if parts[h.name].instances or parts[h.name].gateway)
        return replace(self, hosts=tuple(hosts), parts=parts)

    def _part(self, host: Host, names: Collection[str], gateways: Collection[str]) -> _Part:
        before = self.parts.get(host.name)
        known = before.instances if before else {*host.instance_names}
        chosen = {i for i in known if not {host.name, i, f"{host.name}/{i}"}.isdisjoint(names)}
        whole = host.name in names or host.name in gateways
        return _Part(frozenset(chosen), whole and (before is None or before.gateway))

    @property
    def builds(self) -> Mapping[str, Build]:
        """Key -> who builds a release, and who gets it."""
        return self.shared.builds if self.shared else {}

    @property
    def gateways(self) -> Mapping[str, GatewayPlan]:
        """Host -> what it serves, for those hosts of the inventory that can be read."""
        return self.shared.gateways if self.shared else {}

    def whole_gateways(self) -> Mapping[str, GatewayPlan]:
        """The same. Raises CorralError for a host or a gateway that cannot be read."""
        if self.shared:
            for mistake in (*self.shared.unread.values(), *self.shared.gateway_mistakes.values()):
                raise mistake
        return self.gateways

    def gateways_of(self, host: Host) -> Mapping[str, GatewayPlan]:
        """The same, to tell which are in front of a host. Raises CorralError: see ``Shared``."""
        return self.shared.gateways_of(host) if self.shared else {}

    @property
    def unread(self) -> Mistakes:
        """Hosts that cannot be read, so that what depends on all of them is not whole."""
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
        """Who changes when; see ``corral.planning.waves``. Raises CorralError."""
        return waves(self.serving, self.policy, self.pools, changing)

    @property
    def policy(self) -> FleetPolicy:
        """How the whole fleet changes. Raises CorralError where its hosts disagree."""
        return fleet_policy(self._right)

    @property
    def serving(self) -> tuple[str, ...]:
        """All hosts of the inventory that run instances, but those with a mistake in their data."""
        return tuple(host.name for host in self._right if host.spec.instances)

    @property
    def _right(self) -> list[Host]:
        wrong = self.shared.mistakes if self.shared else {}
        return [host for host in self.everyone if host.name not in wrong]


def plan_fleet(
    hosts: Sequence[Host],
    planner: Planner,
    *,
    mistakes: Mistakes | None = None,
    reached: Collection[str] | None = None,
) -> FleetPlan:
    """Plan the hosts of one inventory; one with a mistake keeps no other from being planned.

    + mistakes: host -> what is wrong in its data, as ``read_inventory`` tells
    + reached: hosts that can build releases in this run; all if None
    """
    known, made = dict(mistakes or {}), dict[str, HostPlan]()
    shared = Shared(hosts, planner, known, reached)

    def planned(host: Host) -> HostPlan:
        if host.name in known:
            raise known[host.name]
        if host.name not in made:
            plan = planner.plan_host(host)
            builds = built_by(host, shared.builds)
            made[host.name] = plan.model_copy(update={"builds": builds})
        return made[host.name]

    return FleetPlan(tuple(hosts), tuple(hosts), planned, shared)


def fleet_of(pairs: Sequence[Pair], everyone: Sequence[Host] = ()) -> FleetPlan:
    """A fleet of plans that are known already, such as those that hosts keep."""
    plans = {host.name: plan for host, plan in pairs}
    hosts = tuple(host for host, _ in pairs)
    return FleetPlan(hosts, tuple(everyone) or hosts, lambda host: plans[host.name])
