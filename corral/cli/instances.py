"""`corral verify`, `status`, `logs`: running instances, by name."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import TypeAdapter

from corral.cli.reach import (
    Planned,
    Target,
    as_kept,
    found_on,
    mistakes_of,
    planned,
    reach,
    reach_one,
    tell_new,
    with_keys,
)
from corral.cli.select import inventory_option
from corral.cli.views.instances import Standing, checks_table, rehash_table, status_table
from corral.errors import CorralError
from corral.host.answers import CHECKS, SHARD_CHECKS, ObservedInstance, ShardCheck
from corral.host.checks import Check, subjects
from corral.inventory.hosts import Host
from corral.paths import HOST_PATHS
from corral.plan.host import HostPlan
from corral.remote.client import travelling_helper
from corral.remote.run import on_all, run_on
from corral.terminal import say, say_json, show

names_argument = click.argument("names", nargs=-1, metavar="[HOST|INSTANCE|HOST/INSTANCE]...")
T = TypeVar("T")

json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")


@click.command()
@names_argument
@click.option("--rehash", is_flag=True, help="Read all weights again and compare digests.")
@json_option
@inventory_option
def verify(names: tuple[str, ...], rehash: bool, as_json: bool, inventory: Path | None) -> None:
    """Compare running instances with their plan; exit code 1 when a check fails."""
    asked = reach(names, inventory)
    made = planned(asked)
    pairs = on_all(lambda target: _to_check(target, made), asked)
    targets = [pair for pair in pairs if not isinstance(pair, CorralError)]
    documents = _documents(asked, targets, made)
    answers = on_all(lambda target: _check(target, documents), targets)
    results = {
        plan.host: _checks(plan, answer) for (_, plan), answer in zip(targets, answers, strict=True)
    }
    results |= _unasked(asked, pairs)
    rotten = _rehash(targets) if rehash else {}
    if as_json:
        rows = {h: [c.model_dump() for c in checks] for h, checks in results.items()}
        shards = {h: [s.model_dump() for s in found] for h, found in rotten.items()}
        say_json({"checks": rows, "shards": shards})
    else:
        show(checks_table(results))
        _tell_silent(
            checks[0].detail for checks in results.values() if checks and checks[0].check == "reach"
        )
        if rehash:
            show(rehash_table(rotten))
    good = all(c.ok for checks in results.values() for c in checks)
    good = good and all(row.ok for rows in rotten.values() for row in rows)
    good = good and not made.mistakes
    if not good:
        say("Next: corral logs HOST/INSTANCE, or deploy to restore the plan", err=True)
    sys.exit(0 if good else 1)


@click.command()
@names_argument
@json_option
@inventory_option
def status(names: tuple[str, ...], as_json: bool, inventory: Path | None) -> None:
    """Show what runs, as hosts tell; exit code 1 when it is not what is planned, and well."""
    targets = reach(names, inventory)
    made = planned(targets)
    found = dict(zip([t.host.name for t in targets], on_all(_found, targets), strict=True))
    standings = [
        standing
        for target in targets
        for standing in _standings(target, found[target.host.name], made)
    ]
    if as_json:
        say_json({name: _plain(answer) for name, answer in found.items()})
    else:
        show(status_table(standings))
        _tell_silent(answer for answer in found.values() if isinstance(answer, str))
    reached = not any(isinstance(answer, str) for answer in found.values())
    good = reached and all(one.is_good for one in standings if one.is_asked)
    sys.exit(0 if good and not made.mistakes else 1)


@click.command()
@click.argument("name", metavar="HOST|INSTANCE|HOST/INSTANCE")
@click.option("-f", "--follow", is_flag=True, help="Go on until interrupted.")
@click.option("-n", "--lines", default=100, show_default=True, help="Start this far back.")
@click.option("--build", is_flag=True, help="Of the host's engine builds instead.")
@inventory_option
def logs(name: str, follow: bool, lines: int, build: bool, inventory: Path | None) -> None:
    """Show the journal of an instance, or of all instances of a host."""
    target = reach_one(name, inventory)
    if build:
        sys.exit(run_on(target.host, _build_log(lines, follow=follow)))
    units = [f"--unit={unit}" for unit in _units(target)]
    words = ["journalctl", *units, "--lines", str(lines), "--no-pager"]
    sys.exit(run_on(target.host, [*words, "--follow"] if follow else words))


def _units(target: Target) -> list[str]:
    """Raises CorralError where there are none: systemd would take that for all there are."""
    _, plan = target.pair
    if not plan.instances:
        raise CorralError(target.host.name, "has no instance", "name a host that has")
    return [instance.unit for instance in plan.instances]


def _build_log(lines: int, *, follow: bool) -> list[str]:
    """The command that shows the logs of the host's last engine builds, one for each engine."""
    # By name: a build that starts anew begins a new file.
    options = f"--lines={lines}" + (" --follow=name --retry" if follow else "")
    return ["sh", "-c", f"exec tail {options} {HOST_PATHS.state}/jobs/build-*/log"]


def _ask(
    target: tuple[Host, HostPlan],
    command: str,
    shape: TypeAdapter[T],
) -> T | str:
    """The helper's answer, or the reason why there is none, as text."""
    host, plan = target
    try:
        return travelling_helper(host).ask([command], shape, plan.to_helper())
    except CorralError as error:
        return str(error)


def _check(target: tuple[Host, HostPlan], documents: Mapping[str, str]) -> list[Check] | str:
    host, _ = target
    try:
        return travelling_helper(host).ask(["check"], CHECKS, documents[host.name])
    except CorralError as error:
        return str(error)


def _checks(plan: HostPlan, answer: list[Check] | str) -> list[Check]:
    """One row a check; a host that could not be asked fails for each of its instances."""
    if isinstance(answer, str):
        return [
            Check(instance=name, check="reach", ok=False, detail=answer) for name in subjects(plan)
        ]
    checked = {check.instance for check in answer}
    missing = [name for name in subjects(plan) if name not in checked]
    return answer + [Check(instance=n, check="checked", ok=False, detail="no") for n in missing]


def _rehash(targets: list[tuple[Host, HostPlan]]) -> dict[str, list[ShardCheck]]:
    answers = on_all(lambda target: _ask(target, "rehash", SHARD_CHECKS), targets)
    return {
        plan.host: [ShardCheck(path="", ok=False, detail=a)] if isinstance(a, str) else a
        for (_, plan), a in zip(targets, answers, strict=True)
    }


def _documents(
    asked: list[Target], pairs: list[tuple[Host, HostPlan]], made: Planned
) -> dict[str, str]:
    """Host -> what its check is asked with; what keeps keys from being compared is told."""
    targets = {target.host.name: target for target in asked}
    known = [*mistakes_of(asked), *made.mistakes.values()]
    documents = {host.name: plan.to_helper() for host, plan in pairs}
    for host, plan in pairs:
        if host.name in made.plans:
            try:
                documents[host.name] = with_keys(targets[host.name], plan)
            except CorralError as error:
                made.mistakes[host.name] = error
    tell_new(made, known=known)
    return documents


def _tell_silent(reasons: Iterable[str]) -> None:
    """Why hosts do not answer, each with what to type next."""
    for reason in dict.fromkeys(reasons):
        say(reason, err=True)


def _to_check(target: Target, made: Planned) -> tuple[Host, HostPlan] | CorralError:
    """A host with its plan; where none can be made, with that of what is installed there."""
    if plan := made.plans.get(target.host.name):
        return target.host, plan
    try:
        kept = as_kept(target)
    except CorralError as error:
        return error
    say(f"{target.host.name} is compared with what is installed there, not with a plan", err=True)
    return target.host, kept


def _unasked(
    targets: list[Target], pairs: Iterable[tuple[Host, HostPlan] | CorralError]
) -> dict[str, list[Check]]:
    """Rows of the hosts that have no plan, neither here nor there."""
    return {
        target.host.name: _checks(target.pair[1], str(pair))
        for target, pair in zip(targets, pairs, strict=True)
        if isinstance(pair, CorralError)
    }


def _found(target: Target) -> dict[str, ObservedInstance] | str:
    """What a host keeps, or the reason why it does not tell, as text."""
    try:
        return found_on(target)
    except CorralError as error:
        return str(error)


def _standings(
    target: Target, answer: Mapping[str, ObservedInstance] | str, made: Planned
) -> list[Standing]:
    """One for each instance that was asked for, and for others that the host has."""
    host, plan = target.host, made.plans.get(target.host.name)
    found = {} if isinstance(answer, str) else answer
    others = [n for n in found if n not in host.instance_names] if target.whole else []
    return [
        Standing(
            host=host.name,
            name=name,
            is_asked=name in target.names,
            answer=answer if isinstance(answer, str) else answer.get(name),
            plan=plan.instance(name) if plan else None,
        )
        for name in (*target.names, *others)
    ]


def _plain(answer: Mapping[str, ObservedInstance] | str) -> Any:
    """For programs: without the plans that the host keeps, which `corral show` compares."""
    if isinstance(answer, str):
        return answer
    rows = {name: one.model_dump(mode="json", exclude={"plan"}) for name, one in answer.items()}
    return {"instances": rows}
