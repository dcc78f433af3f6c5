"""From arguments of commands to hosts and instances, with their plans."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click

from corral.catalog.entries import Catalog
from corral.errors import CorralError
from corral.inventory.hosts import INSTANCE_NAME, Host, Inventory, read_inventory
from corral.planning.fleet import FleetPlan, plan_fleet
from corral.planning.load import load_planner
from corral.project import project_root
from corral.schema import did_you_mean
from corral.terminal import echo, echo_error

inventory_option = click.option(
    "-i",
    "--inventory",
    type=click.Path(path_type=Path),
    help="Inventory file, instead of all inventories/ except examples.",
)


@dataclass(frozen=True)
class Inventories:
    """The inventories of a command: the chosen one, or those of the project.

    + mistakes: mistakes of files that cannot be read; + examples: read only when chosen
    """

    read: tuple[Inventory, ...]
    mistakes: tuple[CorralError, ...] = ()
    examples: tuple[Inventory, ...] = ()

    @property
    def hosts(self) -> list[Host]:
        """All hosts, including those with a mistake in their data."""
        return [host for inventory in self.read for host in inventory.hosts]

    @property
    def all_read(self) -> tuple[Inventory, ...]:
        """All inventories that could be read, examples included."""
        return (*self.read, *self.examples)

    def of(self, host: Host) -> Inventory:
        """The inventory of a host."""
        return next(one for one in self.read if any(host is known for known in one.hosts))


def inventories(chosen: Path | None) -> Inventories:
    """The chosen inventory, or all inventories/ except examples.

    Raises CorralError for the chosen one; mistakes of other files are collected.
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


def print_mistakes(mistakes: Iterable[CorralError]) -> None:
    """Print mistakes that do not stop a command."""
    for mistake in mistakes:
        echo_error(mistake)


def print_replaced(catalog: Catalog) -> None:
    """Print the entries of a fleet's own catalog that count instead of Corral's."""
    for own in catalog.replaced:
        echo(f"{own} of this fleet counts instead of Corral's", err=True)


def select(names: tuple[str, ...], chosen: Path | None) -> list[FleetPlan]:
    """The selected part of each inventory, by HOST, INSTANCE or HOST/INSTANCE.

    Without names every host of a chosen inventory. Raises CorralError, also for a mistake in a
    selected host.
    """
    found = named(names, chosen)
    planner = load_planner(project_root(), tolerant=True)
    whole = [plan_fleet(i.hosts, planner, mistakes=i.mistakes) for i in found.read]
    return [part for part in (fleet.select(names) for fleet in whole) if part.hosts]


def named(names: tuple[str, ...], chosen: Path | None, *, orphans: bool = False) -> Inventories:
    """Inventories that have all names; prints mistakes of others.

    + orphans: HOST/NAME may be an instance that left the inventory; see may_be_orphan()
    Raises CorralError for an unknown name, and without names and a chosen inventory.
    """
    if not names and chosen is None:
        step = "name a host or instance, or add -i INVENTORY"
        raise CorralError("corral", "no host or instance named", step)
    found = inventories(chosen)
    for name in names:
        if any(matching(host, (name,)) for host in found.hosts):
            continue
        if not orphans or not any(may_be_orphan(host, name) for host in found.hosts):
            raise unknown(name, found)
    print_mistakes(found.mistakes)
    return found


def matching(host: Host, names: tuple[str, ...]) -> set[str]:
    """Selected instances of a host, all without names; {""} for a host without instances."""
    own = host.instance_names or ("",)
    return {i for i in own if not names or any(_matches(name, host, i) for name in names)}


def may_be_orphan(host: Host, name: str) -> str | None:
    """The instance that HOST/INSTANCE names on this host, if only the host itself can know it."""
    of_host, _, instance = name.rpartition("/")
    if of_host != host.name or instance in host.instance_names:
        return None
    return instance if re.fullmatch(INSTANCE_NAME, instance) else None


def unknown(name: str, found: Inventories) -> CorralError:
    """The error for a name that no inventory has."""
    if found.mistakes:
        # It may be in a file that cannot be read.
        print_mistakes(found.mistakes[:-1])
        return found.mistakes[-1]
    if name.endswith(".py") and Path(name).is_file():
        return CorralError(name, "is an inventory, not a host", f"name a host, and add -i {name}")
    for example in found.examples:
        if any(matching(host, (name,)) for host in example.hosts):
            what = f"is only in {example.path}, an example, which is read only when named"
            return CorralError(name, what, f"add -i {example.path}, or write your own inventory")
    known = {n for h in found.hosts for n in (h.name, *h.instance_names)}
    hint = did_you_mean(name.split("/")[-1], known)
    return CorralError(name, f"no such host or instance{hint}", "see inventories/")


def _matches(name: str, host: Host, instance: str) -> bool:
    return name in (host.name, instance, f"{host.name}/{instance}")
