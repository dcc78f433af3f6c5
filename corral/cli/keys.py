"""`corral keys`: take api keys over from hosts, or make new ones on purpose."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from corral.cli.select import inventories, inventory_option, tell
from corral.errors import CorralError
from corral.inventory.hosts import Host, Inventory
from corral.keys.adoption import Adopted, Wanted, adopt
from corral.schema import did_you_mean
from corral.store.api_keys import key_path, new_keys
from corral.store.gateway_keys import CLIENTS, METRICS, UPSTREAM
from corral.terminal import say

names_argument = click.argument("names", nargs=-1, metavar="[HOST|HOST/INSTANCE]...")
replace_option = click.option(
    "--replace", is_flag=True, help="Other keys of the store, which are set aside there."
)


@click.group()
def keys() -> None:
    """Api keys: the controller's store, and what hosts have.

    A gateway's are called GATEWAY/gateway-ALIAS (of clients), GATEWAY/upstream-ALIAS (its own) and
    GATEWAY/gateway_metrics.
    """


@keys.command("adopt")
@names_argument
@replace_option
@inventory_option
def adopt_(names: tuple[str, ...], replace: bool, inventory: Path | None) -> None:
    """Take keys over from hosts into the store, by ssh; all that it lacks if only -i is given.

    Exit code 1 when some could not be.
    """
    if not names and inventory is None:
        step = "`corral keys adopt HOST/INSTANCE`, or -i INVENTORY"
        raise CorralError("corral keys adopt", "nothing named", step)
    found = inventories(inventory)
    tell(found.mistakes)
    _refuse_unknown(names, found.hosts)
    done = [one for read in found.read for one in _adopt(read, names, replace=replace)]
    for one in done:
        told = "is in the store now" if one.changed else "is in the store already"
        say(f"{one.name}: {one.problem or told}", err=bool(one.problem))
    if not done:
        say("nothing to take over: the store has all keys that these hosts have")
    sys.exit(1 if any(one.problem for one in done) else 0)


@keys.command()
@click.argument("names", nargs=-1, required=True, metavar="HOST/INSTANCE...")
@replace_option
@inventory_option
def new(names: tuple[str, ...], replace: bool, inventory: Path | None) -> None:
    """Make a new key: every client of it needs it from the next deploy on."""
    found = inventories(inventory)
    tell(found.mistakes)
    pairs = [_pair(name, found.hosts) for name in names]
    for host, _ in pairs:
        if mistake := found.of(host).mistakes.get(host.name):
            # The folder of its keys may be what is wrong.
            raise mistake
    for host, key in pairs:
        new_keys(host, key, replace=replace)
        say(f"{host.name}/{key}: a new key is in {key_path(host, key)}; deploy {host.name}")


def _adopt(inventory: Inventory, names: Sequence[str], *, replace: bool) -> list[Adopted]:
    """What became of keys of one inventory. A host with a mistake keeps no other from it.

    Nothing of such a host is kept: which folder its keys belong into may be what is wrong.
    """
    asked = [_wanted(host, names) for host in inventory.hosts]
    wanted = [one for one in asked if one]
    right = [one for one in wanted if one.host.name not in inventory.mistakes]
    done = adopt(right, inventory, replace=replace) if right else []
    wrong = [inventory.mistakes[one.host.name] for one in wanted if one not in right]
    told = [f"{mistake.what}. Next: {mistake.next_step}" for mistake in wrong]
    return [*done, *(Adopted(name=m.where, problem=t) for m, t in zip(wrong, told, strict=True))]


def _wanted(host: Host, names: Sequence[str]) -> Wanted | None:
    """What is named of a host, if anything; no names mean everything."""
    if not names or host.name in names:
        return Wanted(host=host)
    own = [name for name in names if name in host.instance_names]
    pairs = [name.rpartition("/") for name in names]
    found = (*own, *(key for host_name, _, key in pairs if host_name == host.name))
    return Wanted(host=host, names=found) if found else None


def _refuse_unknown(names: Sequence[str], hosts: Sequence[Host]) -> None:
    for name in names:
        if not any(_wanted(host, (name,)) for host in hosts):
            raise _unknown(name, hosts)
        if "/" in name and name not in (host.name for host in hosts):
            _pair(name, hosts)


def _pair(name: str, hosts: Sequence[Host]) -> tuple[Host, str]:
    """A host and the name of keys that it may have. Raises CorralError."""
    host_name, _, key = name.rpartition("/")
    for host in hosts:
        if host.name == host_name and _may_have(host, key):
            return host, key
    raise _unknown(name, hosts)


def _may_have(host: Host, key: str) -> bool:
    of_gateway = key.startswith((CLIENTS, UPSTREAM)) or key == METRICS
    return key in host.instance_names or (bool(host.data.get("gateway")) and of_gateway)


def _unknown(name: str, hosts: Sequence[Host]) -> CorralError:
    known = [host.name for host in hosts]
    known += [f"{host.name}/{name}" for host in hosts for name in host.instance_names]
    what = f"no such host or instance{did_you_mean(name, known)}"
    return CorralError(name, what, "write HOST/INSTANCE, as in the inventory")
