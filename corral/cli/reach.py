"""From arguments of commands to hosts, without planning them.

A mistake in a profile, a lock or another host must not prevent access to a running server: to show,
stop or revert it, only its host's connection keys are needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from corral.cli.select import (
    Inventories,
    inventories,
    matching,
    may_be_orphan,
    named,
    print_mistakes,
    unknown,
)
from corral.errors import CorralError
from corral.host.answers import OBSERVED, ObservedInstance, ObservedInstances
from corral.inventory.hosts import Host, Inventory
from corral.keys.proof import check_document
from corral.plan.host import HostPlan
from corral.planning.fleet import FleetPlan, plan_fleet
from corral.planning.host_paths import host_paths
from corral.planning.load import load_planner
from corral.planning.stored_plans import named_plan, stored_plan
from corral.project import project_root
from corral.remote.client import travelling_helper
from corral.remote.run import on_all
from corral.rollout.activation import Traffic
from corral.rollout.traffic import traffic, unplanned_traffic
from corral.terminal import echo


@dataclass(frozen=True)
class Target:
    """A selected host.

    + names: selected instances; + inventory: the inventory of the host
    + whole: the host itself was selected, and so its gateway
    + orphans: those of ``names`` that left the inventory and are on the host
    """

    host: Host
    names: tuple[str, ...]
    inventory: Inventory
    whole: bool = True
    orphans: tuple[str, ...] = ()

    @property
    def pair(self) -> tuple[Host, HostPlan]:
        """The host, with a plan that has instance names only."""
        return self.host, named_plan(self.host, self.names)


def reach(names: tuple[str, ...], chosen: Path | None) -> list[Target]:
    """Hosts that ``names`` select, without planning them. Prints their mistakes.

    Raises CorralError for an unknown name, or a chosen inventory that cannot be run.
    """
    found = named(names, chosen, orphans=True)
    targets = []
    for inventory in found.read:
        for host in inventory.hosts:
            wanted, orphans = matching(host, names), _orphans(host, names, found)
            if wanted or orphans:
                chosen_names = [name for name in host.instance_names if name in wanted]
                whole = not names or host.name in names
                both = (*chosen_names, *orphans)
                targets.append(Target(host, both, inventory, whole, orphans))
    print_mistakes(mistakes_of(targets))
    return targets


def reach_all(command: str) -> list[Target]:
    """All hosts of all inventories/, except examples and labs. Raises CorralError without any."""
    own = [one for one in inventories(None).read if not one.is_disposable]
    found = [target for one in own for target in reach((), one.path)]
    if not found:
        what = "no inventory has hosts, apart from examples and labs, which are read when named"
        raise CorralError(command, what, "name a host, or add -i INVENTORY")
    return found


def _orphans(host: Host, names: tuple[str, ...], found: Inventories) -> tuple[str, ...]:
    """Instances of a host that are named and left its inventory; the host is asked.

    Raises CorralError for a name that the host does not have, or where it does not answer.
    """
    meant = {name: instance for name in names if (instance := may_be_orphan(host, name))}
    if not meant:
        return ()
    there = observed_on(Target(host, (), found.of(host)))
    for name, instance in meant.items():
        if instance not in there:
            raise unknown(name, found)
    return tuple(dict.fromkeys(meant.values()))


def reach_one(name: str, chosen: Path | None) -> Target:
    """The only host that ``name`` selects. Raises CorralError when it selects several."""
    found = reach((name,), chosen)
    if len(found) != 1:
        several = " and ".join(target.host.name for target in found)
        raise CorralError(name, f"is on {several}", "name one as HOST/INSTANCE")
    return found[0]


def mistakes_of(targets: Sequence[Target]) -> list[CorralError]:
    """Mistakes in the data of these hosts, and of those that cannot even be reached."""
    found = [target.inventory.mistakes.get(target.host.name) for target in targets]
    return [mistake for mistake in found if mistake] + list(_nameless(targets).values())


def _nameless(targets: Sequence[Target]) -> dict[str, CorralError]:
    """Of inventories that are meant as a whole: hosts whose very name cannot be used."""
    meant = {target.host.name for target in targets if target.whole}
    known = {target.inventory.path: target.inventory for target in targets}
    found: dict[str, CorralError] = {}
    for inventory in known.values():
        names = {host.name for host in inventory.hosts}
        if names <= meant:
            found |= {name: m for name, m in inventory.mistakes.items() if name not in names}
    return found


def observed_host(target: Target) -> ObservedInstances:
    """All instances on a host, selected or not, and its GPUs. Raises CorralError."""
    paths = host_paths(target.host)
    return travelling_helper(target.host).ask(["instances"], OBSERVED, paths.model_dump_json())


def observed_on(target: Target) -> dict[str, ObservedInstance]:
    """All instances on a host, selected or not. Raises CorralError."""
    return observed_host(target).instances


def stored_plans(target: Target, *, plans_needed: bool = True, whole: bool = False) -> HostPlan:
    """The stored plan of the selected instances.

    + plans_needed: if False, an instance without a stored plan has its name only
    + whole: with all other instances on the host
    Raises CorralError for an instance that was never installed there.
    """
    found = observed_on(target)
    for name in target.names:
        if name not in found or (plans_needed and not found[name].plan):
            raise not_installed(target.host, name)
    meant = {*target.names, *(name for name, one in found.items() if whole and one.plan)}
    # In the order of a plan, so that what is made of either is equal.
    ordered = dict.fromkeys([*target.host.instance_names, *found])
    return stored_plan(target.host, {n: found[n].plan for n in ordered if n in meant})


def not_installed(host: Host, name: str) -> CorralError:
    """The error for an instance without a readable installed generation."""
    return CorralError(f"{host.name}/{name}", "no generation of it is installed there", "deploy it")


def fleet_of(inventory: Inventory) -> FleetPlan:
    """The plan of an inventory, tolerant of mistakes in unused entries of the catalog.

    A hub that does not answer is waited for a few seconds only. Raises CorralError.
    """
    planner = load_planner(project_root(), tolerant=True, brief=True)
    return plan_fleet(inventory.hosts, planner, mistakes=inventory.mistakes)


def traffic_of(target: Target) -> Traffic:
    """The traffic control for a host, from the gateways' state if the inventory has no plan."""
    with suppress(CorralError):
        fleet = fleet_of(target.inventory)
        # Raises where a gateway has no complete plan.
        fleet.whole_gateways()
        return traffic(fleet, echo)
    return unplanned_traffic(target.inventory.hosts, echo)


@dataclass(frozen=True)
class Planned:
    """Plans of hosts, as far as they can be made.

    + plans: host -> plan; + mistakes: host -> why it has no plan
    """

    plans: dict[str, HostPlan]
    mistakes: dict[str, CorralError]


def planned(targets: Sequence[Target]) -> Planned:
    """Plans of hosts; a mistake does not affect other hosts. Prints mistakes."""
    made = _planned(targets)
    print_new_mistakes(made, known=mistakes_of(targets))
    return made


def print_new_mistakes(made: Planned, *, known: Iterable[CorralError]) -> None:
    """Print mistakes, each once; ``known`` ones are printed already."""
    printed = {str(mistake) for mistake in known}
    print_mistakes({str(m): m for m in made.mistakes.values() if str(m) not in printed}.values())


def _planned(targets: Sequence[Target]) -> Planned:
    plans: dict[str, HostPlan] = {}
    mistakes = _nameless(targets)
    fleets: dict[Path, FleetPlan | CorralError] = {}
    for inventory in {target.inventory.path: target.inventory for target in targets}.values():
        fleets[inventory.path] = _fleet(inventory)
    answers = on_all(lambda target: _plan(target, fleets[target.inventory.path]), targets)
    for target, answer in zip(targets, answers, strict=True):
        if isinstance(answer, CorralError):
            mistakes[target.host.name] = answer
        else:
            plans[target.host.name] = answer
    return Planned(plans, mistakes)


def _fleet(inventory: Inventory) -> FleetPlan | CorralError:
    try:
        return fleet_of(inventory)
    except CorralError as error:
        return error


def _plan(target: Target, fleet: FleetPlan | CorralError) -> HostPlan | CorralError:
    if isinstance(fleet, CorralError):
        return fleet
    host = target.host.name
    names = [f"{host}/{name}" for name in target.names if name not in target.orphans]
    try:
        if not names and target.orphans and not target.whole:
            return named_plan(target.host, ())
        return fleet.select(names, gateways=[host] if target.whole else ()).plan(host)
    except CorralError as error:
        return error


def with_keys(target: Target, plan: HostPlan) -> str:
    """The input of checks: a plan with digests of its keys. Raises CorralError."""
    hosts = target.inventory.hosts
    if not any(host.data.get("gateway") for host in hosts):
        return check_document(target.host, plan, hosts, {})
    plans = fleet_of(target.inventory).gateways_of(target.host)
    return check_document(target.host, plan, hosts, plans)
