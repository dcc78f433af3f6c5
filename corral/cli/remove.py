"""`corral remove`: an instance from its host, or all of Corral from a host."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import click

from corral.cli.fronts import force_option, fronts, limit_seconds, refuse_last
from corral.cli.reach import Target, observed_host, reach
from corral.cli.select import inventory_option
from corral.errors import CorralError
from corral.host.answers import REMOVED_ALL, ObservedInstance
from corral.planning.host_paths import host_paths
from corral.remote.client import current_operator, travelling_helper
from corral.rollout.removal import remove as remove_from
from corral.store.api_keys import forget_keys, key_path
from corral.terminal import echo

_OR_ALL = "name one, or `corral remove {} --all`"


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="HOST/INSTANCE...|HOST")
@click.option("--all", "everything", is_flag=True, help="All that Corral put on HOST.")
@click.option("--weights", is_flag=True, help="With --all: the weights, too.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask; required without a terminal.")
@force_option
@inventory_option
def remove(
    names: tuple[str, ...],
    everything: bool,
    weights: bool,
    yes: bool,
    force: bool,
    inventory: Path | None,
) -> None:
    """Drain and stop instances; remove their units, generations and keys from the host.

    Meant for instances that left the inventory. With --all the host is as it was before Corral,
    except for packages and drivers.
    """
    targets = (
        [_whole(one) for one in reach(names, inventory)] if everything else _named(names, inventory)
    )
    if weights and not everything:
        raise CorralError("corral remove", "--weights is for a whole host", "add --all, or "
                          "`corral weights prune HOST`")  # fmt: skip
    command = f"corral remove {' '.join(names)}{' --all' if everything else ''}"
    command += f" -i {inventory}" if inventory else ""
    refuse_last(targets, command, force=force, together=True)
    for target in targets:
        _tell(target, everything=everything, weights=weights)
    if not yes and not _agreed(command):
        echo("nothing was removed")
        sys.exit(1)
    for target in targets:
        _remove(target, command, force=force)
        if everything:
            _remove_rest(target, weights=weights)


def _named(names: tuple[str, ...], inventory: Path | None) -> list[Target]:
    """Targets of HOST/INSTANCE alone. Raises CorralError, also where the host has a mistake."""
    for name in names:
        if "/" not in name:
            raise CorralError(
                name, "is no HOST/INSTANCE", f"name one, or `corral remove {name} --all`"
            )
    targets = reach(names, inventory)
    for target in targets:
        if target.whole:
            what = "names a host, not an instance"
            raise CorralError(target.host.name, what, "use HOST/INSTANCE, or add --all")
        _refuse_mistake(target)
    return targets


def _whole(target: Target) -> Target:
    """The target with all instances that are on the host."""
    if not target.whole:
        name = target.host.name
        raise CorralError(f"{name}/{target.names[0]}", "--all is for a whole host", f"name {name}")
    _refuse_mistake(target)
    found = observed_host(target).instances
    orphans = tuple(name for name in found if name not in target.host.instance_names)
    return replace(target, names=tuple(found), orphans=orphans)


def _refuse_mistake(target: Target) -> None:
    """With a mistake in its data it is not known which instances left the inventory."""
    if mistake := target.inventory.mistakes.get(target.host.name):
        raise mistake


def _tell(target: Target, *, everything: bool, weights: bool) -> None:
    host, found = target.host, observed_host(target).instances
    for name in target.names:
        if name not in found:
            raise CorralError(f"{host.name}/{name}", "is not on the host", f"deploy {host.name}")
        echo(f"{host.name}/{name}: {_does(found[name])}; unit, generations and keys are removed")
        if name not in target.orphans and not everything:
            echo(f"  it is in the inventory: the next deploy of {host.name} installs it again")
    if everything:
        kept = "weights, too" if weights else "weights stay"
        echo(f"{host.name}: releases, gateway and state of Corral are removed; {kept}")


def _does(one: ObservedInstance) -> str:
    return f"serves {one.model} {one.quant}".rstrip() if one.pid else "does not run"


def _agreed(command: str) -> bool:
    if not sys.stdin.isatty():
        raise CorralError("corral remove", "there is no terminal to ask on", f"`{command} -y`")
    return click.confirm("Remove this?")


def _remove(target: Target, command: str, *, force: bool) -> None:
    host = target.host
    gateways = fronts(target, [target], command, force=force)
    for name in target.names:
        seconds = limit_seconds(host, name)
        helper = travelling_helper(host)
        answer = remove_from(helper, host, name, gateways, drain_seconds=seconds)
        cut = f"; {answer.requests_cut} requests were cut" if answer.requests_cut else ""
        echo(f"{host.name}/{name}: removed{cut}")
        if name in target.orphans and forget_keys(host, name):
            echo(f"  its keys here, {key_path(host, name)}, are removed, too")


def _remove_rest(target: Target, *, weights: bool) -> None:
    host = target.host
    document = {
        "paths": host_paths(host).model_dump(), "by": current_operator(), "weights": weights,
    }  # fmt: skip
    answer = travelling_helper(host).ask(["remove-all"], REMOVED_ALL, json.dumps(document))
    echo(f"{host.name}: removed {', '.join(answer.removed) or 'nothing more'}")
    for mount in answer.mounts:
        echo(f"{host.name}: {mount} is a mount and stays, as other hosts may share it")
    echo(f"{host.name}: packages and drivers stay; take the host out of {target.inventory.path}")
    if (keys := key_path(host, "x").parent).is_dir():
        echo(f"  its keys are still in {keys}")
