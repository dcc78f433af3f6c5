"""Start of a rollout: read the inventory, stage, and plan the changes for approval."""

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
from corral.planning.load import load_planner
from corral.planning.stored_plans import named_plan
from corral.project import project_root, templates
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
    """The operator's options.

    + only: hosts, all if empty; + soak_seconds: None for the inventory's value
    """

    inventory: Path
    only: tuple[str, ...] = ()
    soak_seconds: int | None = None
    on_failure: OnFailure = "revert"
    without_failed: bool = False


@dataclass(frozen=True)
class Fleet:
    """The fleet of a rollout; ``pairs``: selected hosts that serve.

    + plan: of the whole inventory, for its waves; + traffic: its gateways
    + key_of: returns the keys of an instance of a host
    + document: returns the input of checks: a plan with digests of its keys
    + asked_gateways: selected gateways; + gateways: gateways in front of ``pairs``
    """

    plan: FleetPlan
    pairs: tuple[Pair, ...]
    traffic: Traffic = field(default_factory=NoGateway)
    key_of: Callable[[Host, str], KeyFile] = stored_keys
    document: Document = without_keys
    selected_gateways: tuple[Pair, ...] = ()
    gateways: tuple[Pair, ...] = ()

    @property
    def checked(self) -> FleetPlan:
        """The plans that a rollout verifies at its end."""
        plans = {host.name: (host, plan) for host, plan in (*self.selected_gateways, *self.pairs)}
        return fleet_of(tuple(plans.values()))

    def verified_gateways(self, left_out: Collection[str]) -> tuple[str, ...]:
        """Hosts whose gateway must match its plan once a rollout converged.

        Not those with servers on skipped hosts; their own activation proved what they serve.
        """
        return tuple(
            host.name
            for host, plan in self.selected_gateways
            if plan.gateway and plan.gateway.member_hosts.isdisjoint(left_out)
        )


def fleet(wanted: Wanted, print_line: Callable[[str], None]) -> Fleet:
    """Read and plan an inventory. Raises CorralError, also for a host that is not in it.

    + print_line: called with failures of gateways while the fleet changes
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
    selected = [(h, named.plan(h.name)) for h in named.hosts if h.spec.gateway]
    pairs = [(h, named.plan(h.name)) for h in named.hosts if h.spec.instances]
    if not pairs and not selected:
        what = "no host of it has an instance or a gateway"
        raise CorralError(str(wanted.inventory), what, "add instances to it")

    def document(host: Host, plan: HostPlan) -> str:
        return check_document(host, plan, hosts, whole.gateways_of(host))

    behind = {one.name for host, _ in pairs for one in _in_front(host, whole)}
    return Fleet(
        plan=whole,
        pairs=tuple(pairs),
        traffic=traffic(whole, print_line),
        key_of=key_of(whole),
        document=document,
        selected_gateways=tuple(selected),
        gateways=tuple((h, named_plan(h, ())) for h in hosts if h.name in behind),
    )


def _in_front(host: Host, fleet: FleetPlan) -> list[Host]:
    """Gateways in front of the instances of a host."""
    names = [f"{host.name}/{spec.name}" for spec in host.spec.instances]
    plans = fleet.gateways_of(host)
    return [one for name in names for one in gateways_of(name, fleet.everyone, plans)]


def stage(
    wanted: Wanted,
    found: Fleet,
    log: Path,
    print_line: Callable[[str], None],
    rollout: str | None = None,
) -> list[Member]:
    """Stage everything on the hosts; returns those that are staged. Raises CorralError.

    + rollout: id of the rollout that holds the hosts' locks, if any
    """
    code = run_pyinfra(wanted.inventory, wanted.only, log, print_line, rollout)
    members = look(found.pairs, found.key_of)
    staged = [member for member in members if not member.problem]
    if not wanted.without_failed:
        refuse_unstaged(members, log)
    if code != 0 and not wanted.without_failed:
        what = f"pyinfra ended with exit code {code}; no service was touched"
        raise CorralError("staging", what, f"see {log}, fix that, then run the same command again")
    if not staged and not found.selected_gateways:
        refuse_unstaged(members, log)
    return staged


def orphans(members: Sequence[Member]) -> list[str]:
    """A line for each instance that is on a host and in no inventory."""
    return [
        f"{member.host.name}/{name} is not in the inventory: {found.description}; "
        f"`corral remove {member.host.name}/{name}` removes it"
        for member in members
        for name, found in member.state.unplanned.items()
        if name not in member.host.instance_names
    ]


def plan(wanted: Wanted, found: Fleet, staged: Sequence[Member], rollout: str) -> Rollout:
    """The planned rollout; without steps and gateways there is nothing to change.

    Raises CorralError.
    """
    changing = {member.host.name for member in staged if member.waiting}
    due = found.plan.waves(changing)
    changing_gateways = PlannedGateways(found.selected_gateways, templates(project_root()), rollout)
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
    """The last rollout of an inventory, to resume. Raises CorralError when it ended.

    + soak_seconds: overrides its value unless None
    """
    last = journals.last(str(inventory.resolve()))
    if last is None or last.exit_code is not None:
        what = f"rollout {last.id} ended" if last else "no rollout of it is known here"
        step = f"start a new one: `corral rollout {inventory}`"
        raise CorralError(str(inventory), what, step)
    soak = last.soak_seconds if soak_seconds is None else soak_seconds
    return last.model_copy(update={"soak_seconds": soak})
