"""The beginning of a rollout: lock, stage, look, and a plan that a person can agree to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from corral.errors import CorralError
from corral.inventory.hosts import Host, read_inventory
from corral.keys.proof import check_document
from corral.plan.host import HostPlan
from corral.planning.fleet import FleetPlan, fleet_of, plan_fleet
from corral.planning.gateways import gateways_of
from corral.planning.kept import named_plan
from corral.project import load_planner, project_root
from corral.remote.client import current_operator
from corral.rollout.activation import NoGateway, Traffic
from corral.rollout.gateways import PlannedGateways, settled_hosts
from corral.rollout.health import Document, without_keys
from corral.rollout.journal import Journals, OnFailure, Rollout, now
from corral.rollout.staging import Member, look, refuse_unstaged, run_pyinfra
from corral.rollout.steps import steps
from corral.rollout.traffic import key_of, traffic
from corral.schema import did_you_mean
from corral.store.api_keys import KeyFile, stored_keys

Pair = tuple[Host, HostPlan]


@dataclass(frozen=True)
class Wanted:
    """What a person asked for.

    + only: hosts, all if empty; + soak_seconds: None for the inventory's
    """

    inventory: Path
    only: tuple[str, ...] = ()
    soak_seconds: int | None = None
    on_failure: OnFailure = "revert"
    without_failed: bool = False


@dataclass(frozen=True)
class Fleet:
    """A fleet as a rollout works on it; ``pairs`` are hosts that serve and that were asked for.

    + plan: of the whole inventory, for its waves; + traffic: its gateways
    + key_of: the keys of an instance of a host
    + document: a plan as checks take it, with what the store says of its keys
    + asked_gateways: that were asked for; + gateways: those in front of ``pairs``
    """

    plan: FleetPlan
    pairs: tuple[Pair, ...]
    traffic: Traffic = field(default_factory=NoGateway)
    key_of: Callable[[Host, str], KeyFile] = stored_keys
    document: Document = without_keys
    asked_gateways: tuple[Pair, ...] = ()
    gateways: tuple[Pair, ...] = ()

    @property
    def checked(self) -> FleetPlan:
        """All that a rollout verifies in the end, as it is planned."""
        plans = {host.name: (host, plan) for host, plan in (*self.asked_gateways, *self.pairs)}
        return fleet_of(tuple(plans.values()))

    def verified_gateways(self, left_out: Collection[str]) -> tuple[str, ...]:
        """Hosts whose gateway is as planned once a rollout converged.

        One with servers on hosts that were left out is not; its own switch proved what it serves.
        """
        return tuple(
            host.name
            for host, plan in self.asked_gateways
            if plan.gateway and plan.gateway.member_hosts.isdisjoint(left_out)
        )


def fleet(wanted: Wanted, say: Callable[[str], None]) -> Fleet:
    """Read and plan an inventory. Raises CorralError, also for a host that is not in it.

    + say: told what a gateway could not do, while the fleet changes
    """
    inventory = read_inventory(wanted.inventory)
    hosts = inventory.hosts
    names = {*(host.name for host in hosts), *inventory.mistakes}
    for name in wanted.only:
        if name not in names:
            what = f"no such host in {wanted.inventory}{did_you_mean(name, names)}"
            raise CorralError(name, what, "name hosts of the inventory with --limit")
    for name, mistake in inventory.mistakes.items():
        if not wanted.only or name in wanted.only:
            raise mistake
    planner = load_planner(project_root(), tolerant=True)
    whole = plan_fleet(hosts, planner, mistakes=inventory.mistakes)
    named = whole.select(wanted.only)
    asked = [(h, named.plan(h.name)) for h in named.hosts if h.spec.gateway]
    pairs = [(h, named.plan(h.name)) for h in named.hosts if h.spec.instances]
    if not pairs and not asked:
        what = "no host of it runs an instance, or is a gateway"
        raise CorralError(str(wanted.inventory), what, "describe instances there")

    def document(host: Host, plan: HostPlan) -> str:
        return check_document(host, plan, hosts, whole.gateways_of(host))

    behind = {one.name for host, _ in pairs for one in _in_front(host, whole)}
    return Fleet(
        plan=whole,
        pairs=tuple(pairs),
        traffic=traffic(whole, say),
        key_of=key_of(whole),
        document=document,
        asked_gateways=tuple(asked),
        gateways=tuple((h, named_plan(h, ())) for h in hosts if h.name in behind),
    )


def _in_front(host: Host, fleet: FleetPlan) -> list[Host]:
    """Gateways of the instances of a host."""
    names = [f"{host.name}/{spec.name}" for spec in host.spec.instances]
    plans = fleet.gateways_of(host)
    return [one for name in names for one in gateways_of(name, fleet.everyone, plans)]


def stage(
    wanted: Wanted,
    found: Fleet,
    log: Path,
    say: Callable[[str], None],
    rollout: str | None = None,
) -> list[Member]:
    """Put everything on the hosts; gives those that are staged. Raises CorralError.

    + rollout: that holds the hosts, if one does
    """
    code = run_pyinfra(wanted.inventory, wanted.only, log, say, rollout)
    members = look(found.pairs, found.key_of)
    staged = [member for member in members if not member.problem]
    if not wanted.without_failed:
        refuse_unstaged(members, log)
    if code != 0 and not wanted.without_failed:
        what = f"pyinfra ended with exit code {code}; no service was touched"
        raise CorralError("staging", what, f"see {log}, fix that, then ask again")
    if not staged and not found.asked_gateways:
        refuse_unstaged(members, log)
    return staged


def plan(wanted: Wanted, found: Fleet, staged: Sequence[Member], rollout: str) -> Rollout:
    """What would change; without steps and gateways nothing does. Raises CorralError."""
    changing = {member.host.name for member in staged if member.waiting}
    due = found.plan.waves(changing)
    changing_gateways = PlannedGateways(found.asked_gateways, project_root() / "templates", rollout)
    ready = [member.host.name for member in staged]
    soak = wanted.soak_seconds
    if soak is None:
        soak = found.plan.policy.soak_seconds
    return Rollout(
        id=rollout,
        inventory=str(wanted.inventory.resolve()),
        by=current_operator(),
        began_at=now(),
        only=wanted.only,
        soak_seconds=soak,
        on_failure=wanted.on_failure,
        waves=due,
        steps=steps(staged, due, found.traffic),
        left_out=tuple(host.name for host, _ in found.pairs if host.name not in ready),
        gateways=changing_gateways.steps(settled_hosts(ready)),
        notes=tuple(warning for wave in due for warning in wave.warnings),
    )


def unfinished(journals: Journals, inventory: Path, *, soak_seconds: int | None) -> Rollout:
    """The last rollout of an inventory, to go on with. Raises CorralError when it ended.

    + soak_seconds: instead of what it had, unless None
    """
    last = journals.last(str(inventory.resolve()))
    if last is None or last.exit_code is not None:
        what = f"rollout {last.id} ended" if last else "no rollout of it is known here"
        step = f"begin a new one: `corral rollout {inventory}`"
        raise CorralError(str(inventory), what, step)
    soak = last.soak_seconds if soak_seconds is None else soak_seconds
    return last.model_copy(update={"soak_seconds": soak})
