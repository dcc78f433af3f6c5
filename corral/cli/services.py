"""`corral start`, `stop`, `restart`: instances, drained at their gateways first."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from corral.cli.fronts import force_option, fronts, limit_seconds, refuse_empty, refuse_last
from corral.cli.instances import names_argument
from corral.cli.reach import Target, reach, stored_plans
from corral.cli.select import inventory_option
from corral.errors import CorralError
from corral.host.answers import ANYTHING
from corral.plan.host import HostPlan
from corral.remote.client import travelling_helper
from corral.remote.run import run_on
from corral.rollout.pausing import DrainedServer, Gateways
from corral.terminal import echo

# Beyond the time that servers need to get ready.
_ANSWER_SECONDS = 120


@click.command()
@names_argument
@inventory_option
def start(names: tuple[str, ...], inventory: Path | None) -> None:
    """Start instances and wait until they answer.

    Behind a gateway also wait until its checks pass.
    """
    _each("start", names, inventory, force=False)


@click.command()
@names_argument
@force_option
@inventory_option
def stop(names: tuple[str, ...], force: bool, inventory: Path | None) -> None:
    """Stop instances until the next start, reboot or deploy.

    Behind a gateway an instance is drained first; the last member of an alias is not stopped.
    """
    _each("stop", names, inventory, force=force)


@click.command()
@names_argument
@force_option
@inventory_option
def restart(names: tuple[str, ...], force: bool, inventory: Path | None) -> None:
    """Restart instances one after the other and wait for each.

    Behind a gateway an instance is drained first; the last member of an alias is not restarted.
    """
    _each("restart", names, inventory, force=force)


def _each(verb: str, names: tuple[str, ...], inventory: Path | None, *, force: bool) -> None:
    if not names:
        step = "name a host or instance"
        raise CorralError(f"corral {verb}", "no host or instance named", step)
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
    """Act on one instance and print the outcome; returns whether it succeeded."""
    one = Target(target.host, (name,), target.inventory)
    server = f"{target.host.name}/{name}"
    if verb == "start":
        succeeded = _systemctl(verb, one)
    else:
        with gateways.drained(server, limit_seconds(one.host, name)) as drained:
            succeeded = _act_drained(verb, one, drained)
    succeeded = succeeded and (verb == "stop" or gateways.after(server))
    echo(f"{server}: {({'stop': 'stopped'}.get(verb, 'ready')) if succeeded else 'failed'}")
    return succeeded


def _act_drained(verb: str, target: Target, drained: DrainedServer) -> bool:
    succeeded = _systemctl(verb, target)
    if verb == "stop" or not succeeded:
        drained.stays_down()
    return succeeded


def _systemctl(verb: str, target: Target) -> bool:
    _, plan = target.pair
    if run_on(target.host, ["systemctl", verb, *(one.unit for one in plan.instances)]):
        return False
    if problem := _not_ready(target) if verb != "stop" else "":
        echo(problem, err=True)
    return not problem


def _not_ready(target: Target) -> str:
    """Wait for instances at their installed endpoints; why one does not answer, or empty."""
    try:
        plan = stored_plans(target)
        seconds = _ready_seconds(plan)
        travelling_helper(target.host).ask(["ready"], ANYTHING, plan.to_helper(), seconds=seconds)
    except CorralError as error:
        return str(error)
    return ""


def _ready_seconds(plan: HostPlan) -> int:
    return _ANSWER_SECONDS + sum(one.ready_timeout_seconds for one in plan.instances)
