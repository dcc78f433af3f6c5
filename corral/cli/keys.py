"""`corral keys`: adopt API keys from hosts, create, name, revoke and rotate them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from corral.cli import key_changes
from corral.cli.key_names import is_known, known_names, refuse_unmade
from corral.cli.select import inventories, inventory_option, print_mistakes
from corral.errors import CorralError
from corral.inventory.hosts import Host, Inventory
from corral.keys.adoption import Adopted, Wanted, adopt
from corral.schema import did_you_mean
from corral.store.api_keys import key_path, new_keys
from corral.terminal import echo

names_argument = click.argument("names", nargs=-1, metavar="[HOST|HOST/INSTANCE]...")
replace_option = click.option(
    "--replace", is_flag=True, help="Replace other keys of the store; they are backed up there."
)


@click.group()
def keys() -> None:
    """Manage API keys in the controller's store.

    Keys of a gateway are named GATEWAY/gateway-ALIAS (for clients), GATEWAY/upstream-ALIAS (its
    own) and GATEWAY/gateway_metrics; of monitoring HOST/scrape_metrics, HOST/grafana_admin (a
    password) and HOST/alerts_RECEIVER (which the receiver gives out).
    """


for command in (key_changes.show, key_changes.add, key_changes.revoke, key_changes.rotate):
    keys.add_command(command)


@keys.command("adopt")
@names_argument
@replace_option
@inventory_option
def adopt_(names: tuple[str, ...], replace: bool, inventory: Path | None) -> None:
    """Copy keys from hosts to the store, over ssh.

    Without names: all that the store lacks, with secrets of receivers of alerts and Grafana's
    password. Exit code 1: some keys were not copied.
    """
    if not names and inventory is None:
        step = "run `corral keys adopt HOST/INSTANCE`, or add -i INVENTORY"
        raise CorralError("corral keys adopt", "nothing named", step)
    found = inventories(inventory)
    print_mistakes(found.mistakes)
    _refuse_unknown(names, found.hosts)
    done = [one for read in found.read for one in _adopt(read, names, replace=replace)]
    for one in done:
        outcome = "is in the store now" if one.changed else "is in the store already"
        echo(f"{one.name}: {one.problem or outcome}", err=bool(one.problem))
    if not done:
        echo("nothing to adopt: the store has all keys of these hosts")
    sys.exit(1 if any(one.problem for one in done) else 0)


@keys.command()
@click.argument("names", nargs=-1, required=True, metavar="HOST/INSTANCE...")
@replace_option
@inventory_option
def new(names: tuple[str, ...], replace: bool, inventory: Path | None) -> None:
    """Create a new key; clients need it from the next deploy on."""
    found = inventories(inventory)
    print_mistakes(found.mistakes)
    pairs = [_pair(name, found.hosts) for name in names]
    for host, key in pairs:
        refuse_unmade(host, key)
        if mistake := found.of(host).mistakes.get(host.name):
            # The mistake may be in the folder of its keys.
            raise mistake
    for host, key in pairs:
        new_keys(host, key, replace=replace)
        echo(f"{host.name}/{key}: a new key is in {key_path(host, key)}; deploy {host.name}")


def _adopt(inventory: Inventory, names: Sequence[str], *, replace: bool) -> list[Adopted]:
    """Adopt keys of one inventory; a host with a mistake does not affect the others.

    Keys of such a host are not adopted: the mistake may be in the folder of its keys.
    """
    selected = [_wanted(host, names) for host in inventory.hosts]
    wanted = [one for one in selected if one]
    valid = [one for one in wanted if one.host.name not in inventory.mistakes]
    done = adopt(valid, inventory, replace=replace) if valid else []
    mistakes = [inventory.mistakes[one.host.name] for one in wanted if one not in valid]
    problems = [(m.where, m.in_one_line) for m in mistakes]
    return [*done, *(Adopted(name=where, problem=text) for where, text in problems)]


def _wanted(host: Host, names: Sequence[str]) -> Wanted | None:
    """The keys of a host that names select, or None; without names all."""
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
    """A host and the name of its keys. Raises CorralError."""
    host_name, _, key = name.rpartition("/")
    for host in hosts:
        if host.name == host_name and is_known(host, key):
            return host, key
    raise _unknown(name, hosts)


def _unknown(name: str, hosts: Sequence[Host]) -> CorralError:
    known = [one for host in hosts for one in (host.name, *known_names(host))]
    what = f"no such host or instance{did_you_mean(name, known)}"
    return CorralError(name, what, "use HOST/INSTANCE, as in the inventory")
