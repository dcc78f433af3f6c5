"""`corral keys show|add|revoke|rotate`: keys of clients by name, and their replacement."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from pydantic import Field, TypeAdapter

from corral.cli.documents import Document
from corral.cli.key_names import is_alert_secret, is_known, known_names, refuse_single
from corral.cli.select import Inventories, inventories, inventory_option, print_mistakes
from corral.errors import CorralError
from corral.keys import changes
from corral.keys.changes import Subject
from corral.plan.gateway import server_name
from corral.schema import Frozen, did_you_mean
from corral.store.alert_secrets import alert_secret
from corral.store.api_keys import entries_of
from corral.store.entries import CLIENT_NAME, KeyEntry
from corral.store.gateway_keys import CLIENTS, UPSTREAM
from corral.terminal import Rows, echo
from corral.terminal import show as show_rows

gateway_option = click.option(
    "--gateway", "alias", metavar="ALIAS",
    help="Keys of the clients of an alias, at all its gateways; GATEWAY/ALIAS: at one.",
)  # fmt: skip
client_option = click.option("--client", metavar="NAME", help="One client.")
of_gateway_option = click.option(
    "--gateway", "alias", metavar="ALIAS", required=True, help="Alias, or GATEWAY/ALIAS."
)
of_client_option = click.option(
    "--client", metavar="NAME", required=True, help="Name of the client."
)
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
store_only_option = click.option(
    "--store-only", is_flag=True, help="Change the store alone; a later deploy changes hosts."
)


@dataclass(frozen=True)
class Selected:
    """Subjects of one inventory; ``hosts``: to roll out after a change."""

    inventory: Path
    subjects: tuple[Subject, ...]
    hosts: tuple[str, ...]


class KeyRow(Frozen):
    """A key of the store, without the key."""

    keys: str = Field(description="HOST/INSTANCE, or GATEWAY/NAME")
    client: str = Field(description="name of the client; empty: none")
    fingerprint: str = Field(description="beginning of the key's digest; empty: a secret of others")
    made: str = Field(description="when it was made; empty: not known")
    replaced: str = Field(description="when it was replaced; empty: it is current")


_SHOWN = Document(
    "keys-show",
    TypeAdapter(list[KeyRow]),
    "corral keys show",
    about="Stored keys by client, without the keys.",
)


@click.command()
@click.argument("names", nargs=-1, metavar="[HOST/INSTANCE]...")
@gateway_option
@client_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@inventory_option
def show(
    names: tuple[str, ...],
    alias: str | None,
    client: str | None,
    as_json: bool,
    inventory: Path | None,
) -> None:
    """List stored keys by client, without the keys; with --client, print the key of that client."""
    subjects = [s for one in _selected(names, alias, inventory) for s in one.subjects]
    rows = [(s, entry) for s in subjects for entry in _entries(s)]
    if client:
        # Gateways of an alias share the key of a client.
        keys = list(dict.fromkeys(e.key for _, e in rows if e.client == client and not e.replaced))
        if not keys:
            known = {entry.client for _, entry in rows if entry.client}
            raise CorralError(
                f"client {client}", f"has no key there{did_you_mean(client, known)}",
                f"`corral keys add --gateway {alias or 'ALIAS'} --client {client}`",
            )  # fmt: skip
        echo("\n".join(keys))
        return
    if as_json:
        _SHOWN.show([{"keys": s.shown, **_row(s, entry)} for s, entry in rows])
        return
    table = Rows("keys", "client", "fingerprint", "made", "replaced")
    for subject, entry in rows:
        table.add(subject.shown, *_row(subject, entry).values())
    show_rows(table)


def _entries(subject: Subject) -> Sequence[KeyEntry]:
    if is_alert_secret(subject.host, subject.name):
        return [KeyEntry(key=alert_secret(subject.host, subject.name))]
    return entries_of(subject.host, subject.name)


def _row(subject: Subject, entry: KeyEntry) -> dict[str, str]:
    is_secret = is_alert_secret(subject.host, subject.name)
    return {
        "client": entry.client,
        # A short password could be guessed from the digest.
        "fingerprint": "" if is_secret else entry.fingerprint,
        "made": entry.made,
        "replaced": entry.replaced,
    }


@click.command()
@of_gateway_option
@of_client_option
@yes_option
@store_only_option
@inventory_option
def add(alias: str, client: str, yes: bool, store_only: bool, inventory: Path | None) -> None:
    """Let a client in: a key of its own, at all gateways of an alias."""
    _refuse_name(client)
    selected = _selected((), alias, inventory)
    _may_roll_out(yes=yes, store_only=store_only)
    changes.add([s for one in selected for s in one.subjects], client)
    command = f"corral keys show --gateway {alias} --client {client}"
    echo(f"client {client} has a key; `{command}` prints it")
    _end(selected, yes=yes, store_only=store_only)


@click.command()
@of_gateway_option
@of_client_option
@yes_option
@store_only_option
@inventory_option
def revoke(alias: str, client: str, yes: bool, store_only: bool, inventory: Path | None) -> None:
    """Shut a client out: its keys are removed from all gateways of an alias."""
    selected = _selected((), alias, inventory)
    _may_roll_out(yes=yes, store_only=store_only)
    changes.revoke([s for one in selected for s in one.subjects], client)
    echo(f"client {client} has no key in the store any more")
    _end(selected, yes=yes, store_only=store_only)


@click.command()
@click.argument("names", nargs=-1, metavar="[HOST/INSTANCE]...")
@gateway_option
@client_option
@click.option("--finish", is_flag=True, help="Remove the old keys, once all clients have the new.")
@yes_option
@store_only_option
@inventory_option
def rotate(
    names: tuple[str, ...],
    alias: str | None,
    client: str | None,
    finish: bool,
    yes: bool,
    store_only: bool,
    inventory: Path | None,
) -> None:
    """Replace keys: old and new are accepted until --finish, afterwards the new ones alone.

    GATEWAY/upstream-ALIAS is the key that a gateway sends to its servers: both steps in one.
    """
    selected = _selected(names, alias, inventory)
    _may_roll_out(yes=yes, store_only=store_only)
    subjects = [s for one in selected for s in one.subjects]
    for subject in subjects:
        refuse_single(subject.host, subject.name)
    if finish:
        if not changes.finish(subjects, client or ""):
            echo("no replaced key is in the store")
        _end(selected, yes=yes, store_only=store_only)
        return
    before = changes.begin(subjects, client or "")
    since = f" since {before}" if before else ""
    for subject in subjects:
        echo(f"{subject.shown}: a new key is in the store{since}; the old one stays accepted, too")
    typed = " ".join([*names, *(("--gateway", alias) if alias else ()),
                      *(("--client", client) if client else ())])  # fmt: skip
    if not store_only:
        _roll_out(selected, yes=yes)
        if all(subject.name.startswith(UPSTREAM) for subject in subjects):
            # Only gateways send these, and they send the new one now.
            changes.finish(subjects)
            _end(selected, yes=yes, store_only=False)
            return
    else:
        _say_how(selected)
    echo(f"Next: give clients the new key, then `corral keys rotate {typed} --finish`")


def _refuse_name(client: str) -> None:
    if not re.fullmatch(CLIENT_NAME, client):
        what = "is no name of a client: letters, digits, dots, dashes, underscores and @"
        raise CorralError(f"--client {client}", what, "choose another name")


def _selected(names: Sequence[str], alias: str | None, chosen: Path | None) -> list[Selected]:
    """What is named, by inventory. Raises CorralError for a name that is none."""
    if bool(names) == bool(alias):
        step = "name HOST/INSTANCE, or --gateway ALIAS"
        raise CorralError("corral keys", "needs either names or --gateway", step)
    found = inventories(chosen)
    print_mistakes(found.mistakes)
    pairs = _of_alias(alias, found) if alias else [_named(name, found) for name in names]
    for subject in pairs:
        if mistake := found.of(subject.host).mistakes.get(subject.host.name):
            # The mistake may be in the folder of its keys.
            raise mistake
    by_inventory: dict[Path, list[Subject]] = {}
    for subject in pairs:
        by_inventory.setdefault(found.of(subject.host).path, []).append(subject)
    return [
        Selected(path, tuple(subjects), _hosts_of(path, subjects, found))
        for path, subjects in by_inventory.items()
    ]


def _hosts_of(path: Path, subjects: Sequence[Subject], found: Inventories) -> tuple[str, ...]:
    """Hosts that get the keys. All of an inventory may get those that a gateway sends."""
    if any(subject.name.startswith(UPSTREAM) for subject in subjects):
        read = next(one for one in found.read if one.path == path)
        return tuple(host.name for host in read.hosts)
    return tuple(dict.fromkeys(subject.host.name for subject in subjects))


def _of_alias(alias: str, found: Inventories) -> list[Subject]:
    gateway, _, name = alias.rpartition("/")
    hosts = [host for host in found.hosts if host.spec.gateway]
    for only, wanted in ((gateway, name), ("", alias)):
        subjects = [
            Subject(host=host, name=f"{CLIENTS}{server_name(wanted)}")
            for host in hosts
            if host.spec.gateway
            and wanted in {*host.spec.gateway.aliases, *map(server_name, host.spec.gateway.aliases)}
            and (not only or host.name == only)
        ]
        if subjects:
            return subjects
    known = {one for host in hosts if host.spec.gateway for one in host.spec.gateway.aliases}
    what = f"no gateway has this alias{did_you_mean(name, known)}"
    raise CorralError(f"--gateway {alias}", what, "name one, or add -i INVENTORY")


def _named(name: str, found: Inventories) -> Subject:
    host_name, _, key = name.rpartition("/")
    for host in found.hosts:
        if host.name == host_name and is_known(host, key):
            return Subject(host=host, name=key)
    known = [one for host in found.hosts for one in known_names(host)]
    what = f"no such instance{did_you_mean(name, known)}"
    raise CorralError(name, what, "use HOST/INSTANCE, as in the inventory")


def _may_roll_out(*, yes: bool, store_only: bool) -> None:
    """Refuse before anything is changed what could not be rolled out."""
    if not (yes or store_only or sys.stdin.isatty()):
        step = "add -y, or --store-only to deploy later"
        raise CorralError("corral keys", "there is no terminal to ask on", step)


def _end(selected: Sequence[Selected], *, yes: bool, store_only: bool) -> None:
    if store_only:
        _say_how(selected)
    else:
        _roll_out(selected, yes=yes)


def _say_how(selected: Sequence[Selected]) -> None:
    for one in selected:
        echo(f"Next, for the hosts to know it: `{_command(one)}`")


def _command(one: Selected) -> str:
    return " ".join(["corral rollout", str(one.inventory), *(f"--limit {h}" for h in one.hosts)])


def _roll_out(selected: Sequence[Selected], *, yes: bool) -> None:
    """Roll out changed keys. Exits where a rollout does not converge; the store stays changed."""
    for one in selected:
        words = [str(one.inventory), *(word for h in one.hosts for word in ("--limit", h))]
        code = roll_out([*words, "-y"] if yes else words)
        if code != 0:
            what = f"its rollout ended with exit code {code}; the store has the new state already"
            raise CorralError("corral keys", what, f"see above, then `{_command(one)}`")


def roll_out(words: list[str]) -> int:
    """`corral rollout` with these words; its exit code."""
    from corral.cli.rollout import rollout

    try:
        rollout.main(words, standalone_mode=False)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    return 0
