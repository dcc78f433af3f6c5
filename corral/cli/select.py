"""From what a person types to hosts and instances, with plans of what they shall be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from corral.errors import CorralError
from corral.inventory.hosts import Host, Inventory, read_inventory
from corral.planning.fleet import FleetPlan, plan_fleet
from corral.project import load_planner, project_root
from corral.schema import did_you_mean
from corral.terminal import say_error

inventory_option = click.option(
    "-i",
    "--inventory",
    type=click.Path(path_type=Path),
    help="One inventory; if not given, all of inventories/ but examples.",
)


@dataclass(frozen=True)
class Inventories:
    """What a command works on: the inventory that was named, or those of the project.

    + mistakes: of files that cannot be read at all; none of them was named
    + examples: not read unless they are named
    """

    read: tuple[Inventory, ...]
    mistakes: tuple[CorralError, ...] = ()
    examples: tuple[Inventory, ...] = ()

    @property
    def hosts(self) -> list[Host]:
        """All hosts, also those with a mistake in their data."""
        return [host for inventory in self.read for host in inventory.hosts]

    def of(self, host: Host) -> Inventory:
        """The inventory that a host is in."""
        return next(one for one in self.read if any(host is known for known in one.hosts))


def inventories(chosen: Path | None) -> Inventories:
    """The chosen inventory, or every one of inventories/ but examples.

    Raises CorralError for the chosen one; a file that nobody named is a mistake to be told.
    """
    if chosen:
        found = read_inventory(chosen)
        if not found.hosts:
            nothing = CorralError(str(chosen), "describes no host", "name another, or add hosts")
            raise next(iter(found.mistakes.values()), nothing)
        return Inventories((found,))
    read: list[Inventory] = []
    mistakes: list[CorralError] = []
    for path in sorted((project_root() / "inventories").glob("*.py")):
        try:
            read.append(read_inventory(path.relative_to(project_root())))
        except CorralError as error:
            mistakes.append(error)
    own = tuple(one for one in read if not one.is_example)
    return Inventories(own, tuple(mistakes), tuple(one for one in read if one.is_example))


def tell(mistakes: Iterable[CorralError]) -> None:
    """Print mistakes beside what could be read in spite of them."""
    for mistake in mistakes:
        say_error(mistake)


def all_hosts(chosen: Path | None) -> list[Host]:
    """Hosts of the chosen inventory, or of all. Raises CorralError at the first mistake."""
    found = inventories(chosen)
    for mistake in (*found.mistakes, *(m for one in found.read for m in one.mistakes.values())):
        raise mistake
    return found.hosts


def select(names: tuple[str, ...], chosen: Path | None) -> list[FleetPlan]:
    """What ``names`` say of each inventory: HOST, INSTANCE or HOST/INSTANCE.

    No name means every host, which needs an inventory to be chosen. Raises CorralError, also for
    a mistake in a host that is meant.
    """
    found = named(names, chosen)
    planner = load_planner(project_root(), tolerant=True)
    whole = [plan_fleet(i.hosts, planner, mistakes=i.mistakes) for i in found.read]
    return [part for part in (fleet.select(names) for fleet in whole) if part.hosts]


def named(names: tuple[str, ...], chosen: Path | None) -> Inventories:
    """Inventories in which all names are found; mistakes of others are told.

    Raises CorralError for a name that is nowhere, or for none without a chosen inventory.
    """
    if not names and chosen is None:
        raise CorralError("corral", "no host or instance named", "name some, or give -i INVENTORY")
    found = inventories(chosen)
    for name in names:
        if not any(matching(host, (name,)) for host in found.hosts):
            raise _unknown(name, found)
    tell(found.mistakes)
    return found


def matching(host: Host, names: tuple[str, ...]) -> set[str]:
    """Instances of a host that names fit, all without names; one called "" where it has none."""
    own = host.instance_names or ("",)
    return {i for i in own if not names or any(_matches(name, host, i) for name in names)}


def _unknown(name: str, found: Inventories) -> CorralError:
    if found.mistakes:
        # It may be in a file that cannot be read.
        tell(found.mistakes[:-1])
        return found.mistakes[-1]
    for example in found.examples:
        if any(matching(host, (name,)) for host in example.hosts):
            what = f"is in {example.path} alone, an example: it is read when it is named"
            return CorralError(name, what, f"give -i {example.path}, or describe your own hosts")
    known = {n for h in found.hosts for n in (h.name, *h.instance_names)}
    hint = did_you_mean(name.split("/")[-1], known)
    return CorralError(name, f"no such host or instance{hint}", "see inventories/")


def _matches(name: str, host: Host, instance: str) -> bool:
    return name in (host.name, instance, f"{host.name}/{instance}")
