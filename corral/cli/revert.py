"""`corral revert`: back to the generation before, of instances or of a whole rollout."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from corral.activation import Driver
from corral.cli.rollout import state_option
from corral.cli.run_rollout import run_course
from corral.cli.select import inventories, inventory_option, select
from corral.errors import CorralError
from corral.following import News
from corral.installed import operator
from corral.inventory import Host, load_inventory
from corral.plan import HostPlan
from corral.project import load_planner, project_root
from corral.rollout.begin import Fleet, Wanted, fleet
from corral.rollout.journal import REVERTED, Journals, Rollout, now
from corral.rollout.locks import fleet_lock
from corral.rollout.staging import look
from corral.rollout.view import LineView
from corral.terminal import console, say
from corral.traffic import traffic


@click.command()
@click.argument("names", nargs=-1, metavar="[HOST|INSTANCE|HOST/INSTANCE]...")
@click.option("--rollout", "rollout_id", metavar="ID", help="All that this rollout changed.")
@click.option("--to", metavar="GENERATION", help="Instead of the generation before.")
@state_option
@inventory_option
def revert(
    names: tuple[str, ...],
    rollout_id: str | None,
    to: str | None,
    folder: Path,
    inventory: Path | None,
) -> None:
    """Switch back, from what is on the hosts alone: gated, and taken back if it fails as well.

    Hosts one after the other, or a rollout's waves the last one first. Exit code 0: all serve what
    they were switched back to, 20: some do not.
    """
    if bool(names) == bool(rollout_id) or (rollout_id and to):
        step = "`corral revert HOST/INSTANCE [--to GENERATION]` or `corral revert --rollout ID`"
        raise CorralError("corral revert", "names or --rollout, one of them", step)
    if rollout_id:
        sys.exit(_rollout(Journals(folder), rollout_id))
    targets = select(names, inventory)
    done = [_host(host, plan, to, inventory) for host, plan in targets]
    sys.exit(0 if all(done) else 20)


def _host(host: Host, plan: HostPlan, to: str | None, inventory: Path | None) -> bool:
    """Whether all instances of a host are back; a report that says more is printed."""
    view = LineView(console(soft_wrap=True))

    def hear(instance: str, news: News) -> None:
        view.heard(f"{host.name}/{instance}", news)

    planner = load_planner(project_root())
    gateways, _ = traffic(_neighbours(host, inventory), planner, say)
    driver = Driver(host, plan, gateways, hear=hear)
    good = True
    for instance in plan.instances:
        report = driver.revert(instance, to)
        view.ended(report)
        good = good and report.ok
    return good


def _neighbours(host: Host, inventory: Path | None) -> list[Host]:
    """All hosts of the inventory that a host is in, the gateways among them."""
    for path in inventories(inventory):
        hosts = load_inventory(path)
        if host.name in (one.name for one in hosts):
            return hosts
    return [host]


def _rollout(journals: Journals, rollout_id: str) -> int:
    rollout = journals.load(rollout_id)
    if not rollout.to_take_back():
        say(f"rollout {rollout_id} has nothing to take back")
        return 0
    inventory = Path(rollout.inventory)
    found = fleet(Wanted(inventory, rollout.only), say)
    with fleet_lock(journals.folder, inventory, by=operator(), since=now()):
        leave = _changed_again(rollout, found)
        for name in sorted(leave):
            say(f"{name} serves something else by now, and is left as it is")
        back = {"failure": f"taken back by {operator()}", "on_failure": "revert"}
        ended = run_course(rollout.model_copy(update=back), found, journals, leave)
    return 0 if ended.exit_code == REVERTED else int(ended.exit_code or 1)


def _changed_again(rollout: Rollout, found: Fleet) -> frozenset[str]:
    """Of what shall be taken back: what does not serve what this rollout put there."""
    wanted = rollout.to_take_back()
    touched = {step.host for step in wanted}
    pairs = [pair for pair in found.pairs if pair[0].name in touched]
    members = {member.host.name: member for member in look(pairs, found.key_of)}
    return frozenset(
        step.name
        for step in wanted
        if step.host in members
        and (state := members[step.host].state.instances.get(step.instance))
        and state.installed_generation != step.to_generation
    )
