"""`corral revert`: switch instances or a whole rollout to the previous generation."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from pydantic import TypeAdapter

from corral.cli.documents import Document, rows_of
from corral.cli.reach import Target, observed_on, reach, stored_plans, traffic_of
from corral.cli.rollout import OUTCOME, state_option
from corral.cli.run_rollout import holding, run_course
from corral.cli.select import inventory_option, print_mistakes
from corral.cli.views.diff import revert_lines
from corral.errors import CorralError
from corral.host.activation_report import Report
from corral.host.answers import ObservedInstance
from corral.inventory.hosts import Host, Inventory, read_inventory
from corral.plan.host import HostPlan
from corral.planning.fleet import fleet_of
from corral.planning.stored_plans import stored_plan
from corral.remote.client import current_operator
from corral.remote.progress import Progress
from corral.remote.run import on_all
from corral.rollout.activation import Driver, NoGateway
from corral.rollout.begin import Fleet
from corral.rollout.differences import RevertForecast, RevertStep, revert_step
from corral.rollout.journal import REVERTED, Journals, Rollout, now
from corral.rollout.locks import fleet_lock
from corral.rollout.view import LineView
from corral.terminal import console, echo, messages_to_stderr

_FORECAST = Document(
    "revert-dry-run",
    TypeAdapter(RevertForecast),
    "corral revert",
    about="What a revert would do now; with --dry-run.",
)
_REPORTS = Document(
    "revert",
    rows_of(Report),
    "corral revert",
    about="What hosts reported of the instances that were reverted by name.",
)


@click.command()
@click.argument("names", nargs=-1, metavar="[HOST|INSTANCE|HOST/INSTANCE]...")
@click.option("--rollout", "rollout_id", metavar="ID", help="Revert all changes of a rollout.")
@click.option("--to", metavar="GENERATION", help="Generation, instead of the previous one.")
@click.option("--dry-run", is_flag=True, help="Show what it would do; change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, and messages to stderr.")
@state_option
@inventory_option
def revert(
    names: tuple[str, ...],
    rollout_id: str | None,
    to: str | None,
    dry_run: bool,
    as_json: bool,
    folder: Path,
    inventory: Path | None,
) -> None:
    """Revert instances or a rollout to the previous generation.

    Uses only files on the hosts; the gate applies. Hosts change one after the other, a rollout
    wave by wave, the last wave first. Exit code 0: all are reverted, 20: some are not. With
    --dry-run 0: no change, 2: some changes, 1: an instance could not be reverted.
    """
    if bool(names) == bool(rollout_id) or (rollout_id and to):
        step = "run `corral revert HOST/INSTANCE [--to GENERATION]` or `corral revert --rollout ID`"
        raise CorralError("corral revert", "needs either names or --rollout", step)
    if dry_run:
        found = (
            _forecast_rollout(Journals(folder), rollout_id)
            if rollout_id
            else _forecast(reach(names, inventory), to)
        )
        if as_json:
            _FORECAST.show(found)
        else:
            echo("\n".join(revert_lines(found)))
        sys.exit(found.exit_code)
    if rollout_id:
        with messages_to_stderr(when=as_json):
            ended, exit_code = _rollout(Journals(folder), rollout_id)
        if as_json:
            OUTCOME.show(ended)
        sys.exit(exit_code)
    with messages_to_stderr(when=as_json):
        reports = [one for target in reach(names, inventory) for one in _host(target, to)]
    if as_json:
        _REPORTS.show(reports)
    sys.exit(0 if all(one.ok for one in reports) else 20)


def _forecast(targets: list[Target], to: str | None) -> RevertForecast:
    """What a revert of instances would do."""
    rows = on_all(lambda target: _of_host(target, to), targets)
    return RevertForecast(instances=tuple(row for some in rows for row in some))


def _of_host(target: Target, to: str | None) -> list[RevertStep]:
    try:
        plan, found = stored_plans(target, plans_needed=False), observed_on(target)
    except CorralError as error:
        problem = error.in_one_line
        names = target.names or ("",)
        return [RevertStep(name=f"{target.host.name}/{name}", problem=problem) for name in names]
    return [
        revert_step(target.host, one, found[one.name].installed_generation, to)
        for one in plan.instances
    ]


def _forecast_rollout(journals: Journals, rollout_id: str) -> RevertForecast:
    """What a revert of a rollout would do: the last wave first."""
    rollout = journals.load(rollout_id)
    targets = _touched(rollout, read_inventory(Path(rollout.inventory)))
    found = dict(zip([t.host.name for t in targets], on_all(_observed, targets), strict=True))
    leave = _changed_again(rollout, found)
    steps = []
    for step in reversed(rollout.to_revert()):
        here = found[step.host].get(step.instance)
        if here is None:
            problem = f"its host does not answer. Next: run `corral status {step.host}`"
            steps.append(RevertStep(name=step.name, problem=problem))
        elif step.name not in leave:
            host = _host_of(targets, step.host)
            plan = stored_plan(host, {step.instance: here.plan})
            steps.append(
                revert_step(
                    host, plan.instances[0], here.installed_generation, step.from_generation
                )
            )
    return RevertForecast(instances=tuple(steps), gateways=tuple(rollout.gateways_to_revert()))


def _host_of(targets: Sequence[Target], name: str) -> Host:
    """The host of this name, which is one of them."""
    return next(target.host for target in targets if target.host.name == name)


def _host(target: Target, to: str | None) -> list[Report]:
    """Revert the instances of a host and print the reports."""
    view, host = LineView(console(soft_wrap=True)), target.host

    def on_progress(instance: str, progress: Progress) -> None:
        view.on_progress(f"{host.name}/{instance}", progress)

    plan = stored_plans(target, plans_needed=False)
    driver = Driver(host, plan, traffic_of(target), on_progress=on_progress)
    reports = []
    for instance in plan.instances:
        report = driver.revert(instance, to)
        view.ended(report)
        reports.append(report)
    return reports


def _rollout(journals: Journals, rollout_id: str) -> tuple[Rollout, int]:
    """Revert a rollout; returns it with what was reverted, and the exit code."""
    rollout = journals.load(rollout_id)
    if not rollout.to_revert() and not rollout.gateways_to_revert():
        echo(f"rollout {rollout_id} has nothing to revert")
        return rollout, 0
    inventory = Path(rollout.inventory)
    read = read_inventory(inventory)
    targets = _touched(rollout, read)
    answers = on_all(_observed, targets)
    found = {target.host.name: a for target, a in zip(targets, answers, strict=True)}
    gateways = tuple((host, stored_plan(host, {})) for host in read.hosts if host.spec.gateway)
    changed = [step.host for step in rollout.gateways]
    pairs = tuple(_pair(target, found[target.host.name]) for target in targets)
    fleet = Fleet(
        plan=fleet_of(pairs),
        pairs=pairs,
        traffic=traffic_of(targets[0]) if targets else NoGateway(),
        gateways=gateways,
        selected_gateways=tuple(pair for pair in gateways if pair[0].name in changed),
    )
    with fleet_lock(journals.folder, inventory, by=current_operator(), since=now()):
        leave = _changed_again(rollout, found)
        for name in sorted(leave):
            echo(f"{name} has changed since that rollout, and is left unchanged")
        reverted = {"failure": f"reverted by {current_operator()}", "on_failure": "revert"}
        with holding(fleet, rollout.id) as holds:
            ended = run_course(rollout.model_copy(update=reverted), fleet, journals, holds, leave)
    return ended, 0 if ended.exit_code == REVERTED else int(ended.exit_code or 1)


def _touched(rollout: Rollout, inventory: Inventory) -> list[Target]:
    """Hosts that a rollout changed. Raises CorralError for one that is not in its inventory."""
    hosts = {host.name: host for host in inventory.hosts}
    names = list(dict.fromkeys(step.host for step in rollout.steps))
    if missing := [name for name in names if name not in hosts]:
        mistake = inventory.mistakes.get(missing[0])
        what = mistake.what if mistake else f"is no longer in {inventory.path}"
        step = "add its connection keys there, then run the same command again"
        raise CorralError(missing[0], what, step)
    print_mistakes(inventory.mistakes.values())
    return [Target(hosts[name], hosts[name].instance_names, inventory) for name in names]


def _observed(target: Target) -> dict[str, ObservedInstance]:
    """The instances of a host; empty without an answer, as the next request reports the error."""
    try:
        return observed_on(target)
    except CorralError:
        return {}


def _pair(target: Target, found: Mapping[str, ObservedInstance]) -> tuple[Host, HostPlan]:
    stored = {name: found[name].plan if name in found else {} for name in target.names}
    return target.host, stored_plan(target.host, stored)


def _changed_again(
    rollout: Rollout, found: Mapping[str, Mapping[str, ObservedInstance]]
) -> frozenset[str]:
    """Instances to revert whose generation is no longer that of this rollout."""
    return frozenset(
        step.name
        for step in rollout.to_revert()
        if (observed := found[step.host].get(step.instance))
        and observed.installed_generation != step.to_generation
    )
