"""`corral start`, `stop`, `restart`: instances by name, drained at their gateways first."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from corral.cli.fronts import force_option, fronts, limit_seconds, refuse_empty, refuse_last
from corral.cli.instances import names_argument
from corral.cli.reach import Target, as_kept, reach
from corral.cli.select import inventory_option
from corral.errors import CorralError
from corral.host.answers import ANYTHING
from corral.plan.host import HostPlan
from corral.remote.client import travelling_helper
from corral.remote.run import run_on
from corral.rollout.pausing import DrainedServer, Gateways
from corral.terminal import say

# Beside what servers need to get ready.
_ANSWER_SECONDS = 120


@click.command()
@names_argument
@inventory_option
def start(names: tuple[str, ...], inventory: Path | None) -> None:
    """Start instances and wait until they answer, to their gateways as well."""
    _each("start", names, inventory, force=False)


@click.command()
@names_argument
@force_option
@inventory_option
def stop(names: tuple[str, ...], force: bool, inventory: Path | None) -> None:
    """Stop instances until the next start, reboot or deploy.

    Behind a gateway an instance is drained first; the last one of an alias is not stopped.
    """
    _each("stop", names, inventory, force=force)


@click.command()
@names_argument
@force_option
@inventory_option
def restart(names: tuple[str, ...], force: bool, inventory: Path | None) -> None:
    """Restart instances, one after the other, and wait until they answer.

    Behind a gateway an instance is drained first; the last one of an alias is not restarted.
    """
    _each("restart", names, inventory, force=force)


def _each(verb: str, names: tuple[str, ...], inventory: Path | None, *, force: bool) -> None:
    if not names:
        raise CorralError(f"corral {verb}", "no host or instance named", "name what to act on")
    targets = reach(names, inventory)
    refuse_empty(targets)
    chosen = f" -i {inventory}" if inventory else ""
    command = f"corral {verb} {' '.join(names)}{chosen}"
    found = [fronts(target, [target], command, force=force) for target in targets]
    if verb != "start":
        refuse_last(targets, command, force=force, together=verb == "stop")
    done = [
        _act(verb, target, name, front)
        for target, front in zip(targets, found, strict=True)
        for name in target.names
    ]
    sys.exit(0 if all(done) else 1)


def _act(verb: str, target: Target, name: str, gateways: Gateways) -> bool:
    """One instance; gives whether it went well, which is told."""
    one = Target(target.host, (name,), target.inventory)
    server = f"{target.host.name}/{name}"
    if verb == "start":
        good = _systemctl(verb, one)
    else:
        with gateways.drained(server, limit_seconds(one.host, name)) as drained:
            good = _while_drained(verb, one, drained)
    good = good and (verb == "stop" or gateways.after(server))
    say(f"{server}: {({'stop': 'stopped'}.get(verb, 'ready')) if good else 'failed'}")
    return good


def _while_drained(verb: str, target: Target, drained: DrainedServer) -> bool:
    good = _systemctl(verb, target)
    if verb == "stop" or not good:
        drained.stays_down()
    return good


def _systemctl(verb: str, target: Target) -> bool:
    _, plan = target.pair
    if run_on(target.host, ["systemctl", verb, *(one.unit for one in plan.instances)]):
        return False
    if problem := _not_ready(target) if verb != "stop" else "":
        say(problem, err=True)
    return not problem


def _not_ready(target: Target) -> str:
    """Why instances do not answer where what is installed of them listens; empty once all do."""
    try:
        plan = as_kept(target)
        seconds = _ready_seconds(plan)
        travelling_helper(target.host).ask(["ready"], ANYTHING, plan.to_helper(), seconds=seconds)
    except CorralError as error:
        return str(error)
    return ""


def _ready_seconds(plan: HostPlan) -> int:
    return _ANSWER_SECONDS + sum(one.ready_timeout_seconds for one in plan.instances)
