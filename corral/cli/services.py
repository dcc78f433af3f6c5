"""`corral start`, `stop`, `restart`: instances by name, drained at their gateways first."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import click

from corral.cli.instances import names_argument
from corral.cli.reach import Target, as_kept, found_on, reach
from corral.cli.select import inventory_option
from corral.errors import CorralError
from corral.gateway.control import DRAIN_SECONDS
from corral.gateway.moves import kept_place, may_serve
from corral.host.answers import ANYTHING
from corral.inventory.hosts import Host
from corral.plan.host import HostPlan
from corral.remote.client import travelling_helper
from corral.remote.run import run_on
from corral.rollout.pausing import Away, Gateways
from corral.terminal import say

# Beside what servers need to get ready.
_ANSWER_SECONDS = 120

force_option = click.option(
    "--force",
    is_flag=True,
    help="Also the last server of an alias, or with requests in flight, which then fail.",
)


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
    for target in targets:
        _refuse_empty(target)
    chosen = f" -i {inventory}" if inventory else ""
    command = f"corral {verb} {' '.join(names)}{chosen}"
    fronts = [_gateways(target, [target], command, force=force) for target in targets]
    if verb != "start":
        _refuse_last(targets, command, force=force, together=verb == "stop")
    done = [
        _act(verb, target, name, front)
        for target, front in zip(targets, fronts, strict=True)
        for name in target.names
    ]
    sys.exit(0 if all(done) else 1)


def _refuse_empty(target: Target) -> None:
    if not target.names:
        raise CorralError(target.host.name, "has no instance", "name a host that has")


def _gateways(target: Target, targets: list[Target], command: str, *, force: bool) -> Gateways:
    """Those of the inventory that a host is in; + targets: whose servers they are asked about."""
    hosts = tuple(host for host in target.inventory.hosts if "gateway" in host.data)
    return Gateways(hosts, command, say, force, partial(_may_have, targets))


def _may_have(targets: list[Target], gateway: Host, server: str) -> bool:
    """Whether a silent gateway may be in front of a server, by what that server's host keeps."""
    name, _, instance = server.rpartition("/")
    target = next(target for target in targets if target.host.name == name)
    try:
        place = kept_place(found_on(target)[instance].plan)
    except (CorralError, KeyError):
        return True
    return place is None or may_serve(gateway, target.host, place)


def _refuse_last(targets: list[Target], command: str, *, force: bool, together: bool) -> None:
    """Before anything is touched, so that nothing is done by half."""
    for path in dict.fromkeys(target.inventory.path for target in targets):
        same = [target for target in targets if target.inventory.path == path]
        servers = [f"{target.host.name}/{name}" for target in same for name in target.names]
        _gateways(same[0], same, command, force=force).refuse_last(servers, together=together)


def _act(verb: str, target: Target, name: str, gateways: Gateways) -> bool:
    """One instance; gives whether it went well, which is told."""
    one = Target(target.host, (name,), target.inventory)
    server = f"{target.host.name}/{name}"
    if verb == "start":
        good = _systemctl(verb, one)
    else:
        with gateways.away(server, _limit_seconds(one)) as away:
            good = _while_away(verb, one, away)
    good = good and (verb == "stop" or gateways.after(server))
    say(f"{server}: {({'stop': 'stopped'}.get(verb, 'ready')) if good else 'failed'}")
    return good


def _while_away(verb: str, target: Target, away: Away) -> bool:
    good = _systemctl(verb, target)
    if verb == "stop" or not good:
        away.stays_down()
    return good


def _limit_seconds(target: Target) -> int:
    """How long requests in flight are waited for."""
    limits = {one.name: one.drain_seconds for one in target.host.spec.instances}
    return limits.get(target.names[0], DRAIN_SECONDS)


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
