"""`corral diff`: what a deploy would change now."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from pydantic import TypeAdapter

from corral.cli.documents import Document
from corral.cli.select import Inventories, inventories, inventory_option, named, print_mistakes
from corral.cli.views.diff import diff_lines
from corral.errors import CorralError
from corral.inventory.hosts import Host, Inventory
from corral.plan.host import HostPlan
from corral.planning.fleet import FleetPlan, plan_fleet
from corral.planning.load import load_planner
from corral.project import project_root
from corral.remote.run import on_all
from corral.rollout.differences import FleetDiff, HostDiff, host_diff
from corral.rollout.traffic import key_of
from corral.terminal import echo

_DIFF = Document(
    "diff", TypeAdapter(FleetDiff), "corral diff", about="What a deploy would change now."
)


@click.command()
@click.argument("names", nargs=-1, metavar="[HOST|INSTANCE|HOST/INSTANCE]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@inventory_option
def diff(names: tuple[str, ...], as_json: bool, inventory: Path | None) -> None:
    """Show what a deploy would change on hosts now; nothing is changed.

    Without names: all hosts of all inventories/, except examples and labs. Exit code 0: no change,
    2: some changes, 1: a host could not be compared.
    """
    found = _inventories(names, inventory)
    planner = load_planner(project_root(), tolerant=True)
    pairs = [
        (host, fleet)
        for one in found.read
        for fleet in [plan_fleet(one.hosts, planner, mistakes=one.mistakes).select(names)]
        for host in fleet.hosts
    ]
    hosts = (*on_all(lambda pair: _of_host(*pair), pairs), *_unnamed(found, names))
    result = FleetDiff(hosts=tuple(hosts))
    if as_json:
        _DIFF.show(result)
    else:
        echo("\n".join(diff_lines(result)))
    sys.exit(result.exit_code)


def _inventories(names: tuple[str, ...], chosen: Path | None) -> Inventories:
    if names or chosen:
        return named(names, chosen)
    found = inventories(None)
    own = tuple(one for one in found.read if not one.is_disposable)
    if not own and not found.mistakes:
        what = "no inventory has hosts, apart from examples and labs, which are read when named"
        raise CorralError("corral diff", what, "name a host, or add -i INVENTORY")
    print_mistakes(found.mistakes)
    if found.mistakes:
        what = "an inventory cannot be read, so that its hosts are unknown"
        raise CorralError("corral diff", what, "correct it, or name hosts of another")
    return Inventories(own)


def _of_host(host: Host, fleet: FleetPlan) -> HostDiff:
    try:
        plan: HostPlan = fleet.plan(host.name)
    except CorralError as error:
        return HostDiff(host=host.name, problem=f"{error.where}: {error.in_one_line}")
    return host_diff(host, plan, key_of(fleet), fleet.everyone)


def _unnamed(found: Inventories, names: tuple[str, ...]) -> list[HostDiff]:
    """Hosts with an unusable name, where the whole inventory is meant."""
    return [] if names else [row for one in found.read for row in _unusable(one)]


def _unusable(inventory: Inventory) -> list[HostDiff]:
    known = {host.name for host in inventory.hosts}
    return [
        HostDiff(host=name, problem=mistake.in_one_line)
        for name, mistake in inventory.mistakes.items()
        if name not in known
    ]
