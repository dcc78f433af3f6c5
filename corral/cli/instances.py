"""`corral verify`, `status`, `start`, `stop`, `restart`, `logs`: running instances, by name."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import click
from pydantic import TypeAdapter

from corral.answers import ANYTHING, CHECKS, SHARD_CHECKS, STATE, ShardCheck
from corral.cli.select import check_documents, inventory_option, select, select_one_host
from corral.cli.tables import checks_table, rehash_table, status_table
from corral.errors import CorralError
from corral.inventory import Host
from corral.plan import HostPlan, InstancePlan
from corral.remote import call_helper, on_all, run_on
from corral.state import HostState, InstanceState
from corral.terminal import say, say_json, show
from corral.verification import Check, subjects

names_argument = click.argument("names", nargs=-1, metavar="[HOST|INSTANCE|HOST/INSTANCE]...")
# Beside what servers need to get ready.
_ANSWER_SECONDS = 120

T = TypeVar("T")

json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")


@click.command()
@names_argument
@click.option("--rehash", is_flag=True, help="Read all weights again and compare digests.")
@json_option
@inventory_option
def verify(names: tuple[str, ...], rehash: bool, as_json: bool, inventory: Path | None) -> None:
    """Compare running instances with their plan; exit code 1 when a check fails."""
    targets = select(names, inventory)
    documents = check_documents(targets, inventory)
    answers = on_all(lambda target: _check(target, documents), targets)
    results = {
        plan.host: _checks(plan, answer) for (_, plan), answer in zip(targets, answers, strict=True)
    }
    rotten = _rehash(targets) if rehash else {}
    if as_json:
        rows = {h: [c.model_dump() for c in checks] for h, checks in results.items()}
        shards = {h: [s.model_dump() for s in found] for h, found in rotten.items()}
        say_json({"checks": rows, "shards": shards})
    else:
        show(checks_table(results))
        if rehash:
            show(rehash_table(rotten))
    good = all(c.ok for checks in results.values() for c in checks)
    good = good and all(row.ok for rows in rotten.values() for row in rows)
    if not good:
        say("Next: corral logs HOST/INSTANCE, or deploy to restore the plan", err=True)
    sys.exit(0 if good else 1)


@click.command()
@names_argument
@json_option
@inventory_option
def status(names: tuple[str, ...], as_json: bool, inventory: Path | None) -> None:
    """Show what runs; exit code 1 when something planned does not."""
    targets = select(names, inventory)
    answers = on_all(lambda target: _ask(target, "state", STATE), targets)
    states = {plan.host: a for (_, plan), a in zip(targets, answers, strict=True)}
    plans = [plan for _, plan in targets]
    if as_json:
        rows = {
            h: s if isinstance(s, str) else s.model_dump(mode="json") for h, s in states.items()
        }
        say_json(rows)
    else:
        show(status_table(plans, states))
    sys.exit(0 if all(_as_planned(plan, states[plan.host]) for plan in plans) else 1)


@click.command()
@names_argument
@inventory_option
def start(names: tuple[str, ...], inventory: Path | None) -> None:
    """Start instances and wait until they answer."""
    _systemctl("start", names, inventory)


@click.command()
@names_argument
@inventory_option
def stop(names: tuple[str, ...], inventory: Path | None) -> None:
    """Stop instances until the next start, reboot or deploy."""
    _systemctl("stop", names, inventory)


@click.command()
@names_argument
@inventory_option
def restart(names: tuple[str, ...], inventory: Path | None) -> None:
    """Restart instances and wait until they answer."""
    _systemctl("restart", names, inventory)


@click.command()
@click.argument("name", metavar="HOST|INSTANCE|HOST/INSTANCE")
@click.option("-f", "--follow", is_flag=True, help="Go on until interrupted.")
@click.option("-n", "--lines", default=100, show_default=True, help="Start this far back.")
@click.option("--build", is_flag=True, help="Of the host's engine builds instead.")
@inventory_option
def logs(name: str, follow: bool, lines: int, build: bool, inventory: Path | None) -> None:
    """Show the journal of an instance, or of all instances of a host."""
    host, plan = select_one_host(name, inventory)
    if build:
        sys.exit(run_on(host, _build_log(plan, lines, follow=follow)))
    units = [word for instance in plan.instances for word in ("--unit", instance.unit)]
    words = ["journalctl", *units, "--lines", str(lines), "--no-pager"]
    sys.exit(run_on(host, [*words, "--follow"] if follow else words))


def _build_log(plan: HostPlan, lines: int, *, follow: bool) -> list[str]:
    """The command that shows the logs of the host's last engine builds, one for each engine."""
    engines = sorted({release.engine for release in plan.releases})
    files = [f"{plan.paths.state}/jobs/build-{engine}/log" for engine in engines]
    # By name: a build that starts anew begins a new file.
    return ["tail", f"--lines={lines}", *(["--follow=name", "--retry"] if follow else []), *files]


def _systemctl(verb: str, names: tuple[str, ...], inventory: Path | None) -> None:
    if not names:
        raise CorralError(f"corral {verb}", "no host or instance named", "name what to act on")
    failed = 0
    for host, plan in select(names, inventory):
        units = [instance.unit for instance in plan.instances]
        code = run_on(host, ["systemctl", verb, *units])
        if code == 0 and verb != "stop":
            answer = _ask((host, plan), "ready", ANYTHING, _ready_seconds(plan))
            code = 1 if isinstance(answer, str) else 0
            if code:
                say(answer, err=True)
        failed += code != 0
        outcome = "failed" if code else {"stop": "stopped"}.get(verb, "ready")
        for instance in plan.instances:
            say(f"{plan.host}/{instance.name}: {outcome}")
    sys.exit(1 if failed else 0)


def _ready_seconds(plan: HostPlan) -> int:
    """It waits for one instance after the other."""
    return _ANSWER_SECONDS + sum(one.ready_timeout_seconds for one in plan.instances)


def _ask(
    target: tuple[Host, HostPlan],
    command: str,
    shape: TypeAdapter[T],
    seconds: float | None = None,
) -> T | str:
    """The helper's answer, or the reason why there is none, as text."""
    host, plan = target
    try:
        return call_helper(host, command, plan.to_helper(), shape, seconds=seconds)
    except CorralError as error:
        return str(error)


def _check(target: tuple[Host, HostPlan], documents: Mapping[str, str]) -> list[Check] | str:
    host, _ = target
    try:
        return call_helper(host, "check", documents[host.name], CHECKS)
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


def _as_planned(plan: HostPlan, state: HostState | str) -> bool:
    if isinstance(state, str):
        return False
    return all(_is_as_planned(i, state.instances.get(i.name)) for i in plan.instances)


def _is_as_planned(plan: InstancePlan, found: InstanceState | None) -> bool:
    return (
        found is not None
        and found.active == "active"
        and found.proved_generation == plan.generation
    )
