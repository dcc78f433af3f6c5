"""`corral verify`, `status`, `logs`: running instances, by name."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import click
from pydantic import TypeAdapter

from corral.cli.documents import Document
from corral.cli.reach import (
    Planned,
    Target,
    mistakes_of,
    observed_host,
    planned,
    print_new_mistakes,
    reach,
    reach_one,
    stored_plans,
    with_keys,
)
from corral.cli.select import inventory_option
from corral.cli.times import Moment
from corral.cli.views.gpus import HostStatus, gpu_rows, gpu_table
from corral.cli.views.instances import Standing, checks_table, rehash_table, status_table
from corral.errors import CorralError
from corral.host.answers import (
    CHECKS,
    SHARD_CHECKS,
    ObservedInstance,
    ObservedInstances,
    ShardCheck,
)
from corral.host.checks import Check, subjects
from corral.host.state import Unplanned
from corral.inventory.hosts import Host
from corral.paths import HOST_PATHS
from corral.plan.host import HostPlan
from corral.remote.client import travelling_helper
from corral.remote.outside import outside_checks
from corral.remote.run import on_all, run_on
from corral.schema import Frozen
from corral.terminal import echo, show

names_argument = click.argument("names", nargs=-1, metavar="[HOST|INSTANCE|HOST/INSTANCE]...")
T = TypeVar("T")
_WATCH_SECONDS = 2

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Verified(Frozen):
    """Checks by host, and with --rehash the shards that were read."""

    checks: dict[str, list[Check]]
    shards: dict[str, list[ShardCheck]]


_STATUS = Document(
    "status",
    TypeAdapter(dict[str, HostStatus | str]),
    "corral status",
    about="Host -> its instances and GPUs, or why it does not answer.",
)
_VERIFIED = Document(
    "verify", TypeAdapter(Verified), "corral verify", about="Every check of every instance."
)


@click.command()
@names_argument
@click.option("--rehash", is_flag=True, help="Read all weights again and check their digests.")
@json_option
@inventory_option
def verify(names: tuple[str, ...], rehash: bool, as_json: bool, inventory: Path | None) -> None:
    """Compare running instances with their plan.

    Exit code 1: a check failed.
    """
    selected = reach(names, inventory)
    made = planned(selected)
    pairs = on_all(lambda target: _to_check(target, made), selected)
    targets = [pair for pair in pairs if not isinstance(pair, CorralError)]
    documents = _documents(selected, targets, made)
    answers = on_all(lambda target: _check(target, documents), targets)
    seen_from_here = on_all(lambda target: outside_checks(*target), targets)
    results = {
        plan.host: [*_checks(plan, answer), *outside]
        for (_, plan), answer, outside in zip(targets, answers, seen_from_here, strict=True)
    }
    results |= _without_plan(selected, pairs)
    for target, unplanned in zip(selected, on_all(_unplanned, selected), strict=True):
        results[target.host.name] = [*results.get(target.host.name, ()), *unplanned]
    rotten = _rehash(targets) if rehash else {}
    if as_json:
        _VERIFIED.show({"checks": results, "shards": rotten})
    else:
        show(checks_table(results))
        _print_silent(
            checks[0].detail for checks in results.values() if checks and checks[0].check == "reach"
        )
        if rehash:
            show(rehash_table(rotten))
    succeeded = all(c.ok for checks in results.values() for c in checks)
    succeeded = succeeded and all(row.ok for rows in rotten.values() for row in rows)
    succeeded = succeeded and not made.mistakes
    if not succeeded:
        echo("Next: run `corral logs HOST/INSTANCE`, or deploy to restore the plan", err=True)
    sys.exit(0 if succeeded else 1)


@click.command()
@names_argument
@click.option("--watch", is_flag=True, help="Ask again every two seconds, until interrupted.")
@json_option
@inventory_option
def status(names: tuple[str, ...], watch: bool, as_json: bool, inventory: Path | None) -> None:
    """Show running instances as their hosts report them, and the use of GPUs.

    Exit code 1: an instance is not healthy, or does not run its plan.
    """
    targets = reach(names, inventory)
    made = planned(targets)
    succeeded = _status(targets, made, as_json=as_json)
    # Interrupting is how it ends.
    with suppress(KeyboardInterrupt):
        while watch:
            time.sleep(_WATCH_SECONDS)
            succeeded = _status(targets, made, as_json=as_json, again=True)
    sys.exit(0 if succeeded else 1)


def _status(targets: list[Target], made: Planned, *, as_json: bool, again: bool = False) -> bool:
    """Ask all hosts and print what they say; returns whether everything is as planned."""
    found = dict(
        zip([t.host.name for t in targets], on_all(observed_or_reason, targets), strict=True)
    )
    standings = [
        standing
        for target in targets
        for standing in standings_of(target, found[target.host.name], made)
    ]
    if as_json:
        _STATUS.show({t.host.name: _plain(t.host, found[t.host.name]) for t in targets})
    else:
        if again:
            click.clear()
        _show(standings, targets, found)
    for name in (t.host.name for t in targets if t.host.name not in made.plans):
        echo(f"{name}: its plan could not be had, so nothing is compared with it", err=True)
    reached = not any(isinstance(answer, str) for answer in found.values())
    succeeded = reached and all(one.is_good for one in standings if one.is_selected)
    return succeeded and not made.mistakes


def _show(
    standings: list[Standing],
    targets: list[Target],
    found: Mapping[str, ObservedInstances | str],
) -> None:
    show(status_table(standings))
    used = {
        t.host.name: (t.host, answer)
        for t in targets
        if not isinstance(answer := found[t.host.name], str)
    }
    if any(answer.gpus or answer.gpu_problem for _, answer in used.values()):
        echo("")
        show(gpu_table(used))
    _print_silent(answer for answer in found.values() if isinstance(answer, str))
    _print_silent(
        f"{name} is not in the inventory. Next: `corral remove {name}`"
        for name in (f"{one.host}/{one.name}" for one in standings if one.is_orphan)
    )
    _print_silent(
        f"{one.host}/{one.name}: {one.answer.weights_problem}"
        for one in standings
        if isinstance(one.answer, ObservedInstance) and one.answer.weights_problem
    )


@click.command()
@click.argument("name", metavar="HOST|INSTANCE|HOST/INSTANCE")
@click.option("-f", "--follow", is_flag=True, help="Follow new lines until interrupted.")
@click.option("-n", "--lines", type=click.IntRange(0), default=None,
              help="Number of past lines.  [default: 100; all with --since]")  # fmt: skip
@click.option("--since", type=Moment(), help="Lines since then: 10m, 2h, 14:30, today, a date.")
@click.option("--build", is_flag=True, help="Show the host's engine builds instead.")
@inventory_option
def logs(
    name: str,
    follow: bool,
    lines: int | None,
    since: str | None,
    build: bool,
    inventory: Path | None,
) -> None:
    """Show the journal of an instance, or of all instances of a host.

    Times without a zone are the host's.
    """
    if build and since:
        raise CorralError("--build --since", "logs of builds have no times", "use -n instead")
    target = reach_one(name, inventory)
    if build:
        sys.exit(run_on(target.host, _build_log(lines or 100, follow=follow)))
    units = [f"--unit={unit}" for unit in _units(target)]
    limit = "all" if since and lines is None else str(100 if lines is None else lines)
    begin = ["--since", since] if since else []
    command = ["journalctl", *units, "--lines", limit, *begin, "--no-pager"]
    sys.exit(run_on(target.host, [*command, "--follow"] if follow else command))


def _units(target: Target) -> list[str]:
    """Units of a target. Raises CorralError without any: journalctl would show all units."""
    _, plan = target.pair
    if not plan.instances:
        raise CorralError(target.host.name, "has no instance", "name a host that has")
    return [instance.unit for instance in plan.instances]


def _build_log(lines: int, *, follow: bool) -> list[str]:
    """The command that shows the logs of the host's last engine builds, one for each engine."""
    # By name: a restarted build creates a new file.
    options = f"--lines={lines}" + (" --follow=name --retry" if follow else "")
    return ["sh", "-c", f"exec tail {options} {HOST_PATHS.state}/jobs/build-*/log"]


def _ask(
    target: tuple[Host, HostPlan],
    command: str,
    shape: TypeAdapter[T],
) -> T | str:
    """The helper's answer, or why there is none, as text."""
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
    """One row for each check; a host without an answer fails for each of its instances."""
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
    selected: list[Target], pairs: list[tuple[Host, HostPlan]], made: Planned
) -> dict[str, str]:
    """Host -> input of its check; prints mistakes that prevent the comparison of keys."""
    targets = {target.host.name: target for target in selected}
    known = [*mistakes_of(selected), *made.mistakes.values()]
    documents = {host.name: plan.to_helper() for host, plan in pairs}
    for host, plan in pairs:
        if host.name in made.plans:
            try:
                documents[host.name] = with_keys(targets[host.name], plan)
            except CorralError as error:
                made.mistakes[host.name] = error
    print_new_mistakes(made, known=known)
    return documents


def _print_silent(reasons: Iterable[str]) -> None:
    """Print why hosts do not answer, each with its next step."""
    for reason in dict.fromkeys(reasons):
        echo(reason, err=True)


def _to_check(target: Target, made: Planned) -> tuple[Host, HostPlan] | CorralError:
    """A host with its plan; without one, with the plans of its installed generations."""
    if plan := made.plans.get(target.host.name):
        return target.host, plan
    try:
        stored = stored_plans(target)
    except CorralError as error:
        return error
    text = f"{target.host.name} is compared with its installed generations, not with a plan"
    echo(text, err=True)
    return target.host, stored


def _unplanned(target: Target) -> list[Check]:
    """One row for each instance or enabled unit of a host that no inventory names.

    One that neither runs nor starts at boot is shown and is no failure.
    """
    host = target.host
    if not target.whole and not target.orphans:
        return []
    try:
        found = observed_host(target)
    except CorralError:
        # The other checks of the host say so.
        return []
    rows = []
    for name, one in found.instances.items():
        if name in host.instance_names or not (target.whole or name in target.orphans):
            continue
        does = Unplanned(runs=bool(one.pid), at_boot=one.at_boot).description
        detail = f"not in the inventory: {does}; `corral remove {host.name}/{name}`"
        ok = not one.pid and not one.at_boot
        rows.append(Check(instance=name, check="inventory", ok=ok, detail=detail))
    for unit in found.strange_units if target.whole else ():
        name = unit.removeprefix("corral-").removesuffix(".service")
        detail = f"{unit} starts at boot and no plan names it: `systemctl disable --now {unit}`"
        rows.append(Check(instance=name, check="inventory", ok=False, detail=detail))
    return rows


def _without_plan(
    targets: list[Target], pairs: Iterable[tuple[Host, HostPlan] | CorralError]
) -> dict[str, list[Check]]:
    """Rows of hosts without a plan, here or on the host."""
    return {
        target.host.name: _checks(target.pair[1], str(pair))
        for target, pair in zip(targets, pairs, strict=True)
        if isinstance(pair, CorralError)
    }


def observed_or_reason(target: Target) -> ObservedInstances | str:
    """The instances of a host, or why it does not answer, as text."""
    try:
        return observed_host(target)
    except CorralError as error:
        return str(error)


def standings_of(target: Target, answer: ObservedInstances | str, made: Planned) -> list[Standing]:
    """One for each selected instance, and for others on the host."""
    host, plan = target.host, made.plans.get(target.host.name)
    found = {} if isinstance(answer, str) else answer.instances
    others = [n for n in found if n not in host.instance_names] if target.whole else []
    return [
        Standing(
            host=host.name,
            name=name,
            is_selected=name in target.names,
            answer=answer if isinstance(answer, str) else found.get(name),
            plan=plan.instance(name) if plan else None,
            is_orphan=name not in host.instance_names,
        )
        for name in (*target.names, *others)
    ]


def _plain(host: Host, answer: ObservedInstances | str) -> Any:
    """The answer as JSON, without the stored plans, which `corral show` compares."""
    if isinstance(answer, str):
        return answer
    instances = answer.instances.items()
    rows = {name: one.model_dump(mode="json", exclude={"plan"}) for name, one in instances}
    used = {"gpus": gpu_rows(host, answer), "gpu_problem": answer.gpu_problem}
    return {"instances": rows, **used}
