"""`corral engine`: releases on hosts, and their archives on this controller."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from corral.cli.documents import Document, rows_by_host, rows_of, without
from corral.cli.select import inventories, inventory_option, print_mistakes
from corral.cli.views.engines import archives_table, releases_table
from corral.errors import CorralError
from corral.host.answers import RELEASES, InstalledRelease
from corral.inventory.hosts import Host
from corral.paths import HOST_PATHS, default_archives_folder
from corral.remote.client import travelling_helper
from corral.remote.run import on_all
from corral.schema import did_you_mean
from corral.store.engine_archives import Archive, ArchiveStore
from corral.terminal import echo, show

store_option = click.option(
    "--store",
    type=click.Path(path_type=Path),
    default=default_archives_folder,
    help="Archive store, instead of this user's.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


_RELEASES = Document(
    "engine-list",
    rows_by_host(without(InstalledRelease, "manifest")),
    "corral engine list",
    about="Host -> its engine releases, or why it does not answer.",
)
_ARCHIVES = Document(
    "engine-archives",
    rows_of(without(Archive, "manifest")),
    "corral engine archives",
    about="Archives of engine releases on this controller.",
)


@click.group()
def engine() -> None:
    """Manage engine releases on hosts and their archives."""


@engine.command("list")
@click.argument("names", nargs=-1, metavar="[HOST]...")
@json_option
@inventory_option
def list_releases(names: tuple[str, ...], as_json: bool, inventory: Path | None) -> None:
    """List releases on hosts: size, age, users."""
    hosts = _hosts(names, inventory)
    answers = on_all(_releases, hosts)
    found = {host.name: answer for host, answer in zip(hosts, answers, strict=True)}
    if as_json:
        _RELEASES.show(found)
    else:
        show(releases_table(found))
    sys.exit(1 if any(isinstance(answer, str) for answer in answers) else 0)


@engine.command()
@json_option
@store_option
def archives(as_json: bool, store: Path) -> None:
    """List the archives on this controller."""
    found = ArchiveStore(store).all()
    if as_json:
        _ARCHIVES.show([archive.model_dump() for archive in found])
    else:
        show(archives_table(found))


@engine.command("export")
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder.")
@store_option
def export_archives(keys: tuple[str, ...], output: Path, store: Path) -> None:
    """Export archives for another controller; KEY may be a prefix."""
    shelf = ArchiveStore(store)
    for archive in [_named(shelf, key) for key in keys]:
        echo(shelf.export(archive, output))


@engine.command("import")
@click.argument(
    "files", nargs=-1, required=True, metavar="JSON...", type=click.Path(path_type=Path)
)
@store_option
def import_archives(files: tuple[Path, ...], store: Path) -> None:
    """Import archives; each JSON file must be beside its archive."""
    shelf = ArchiveStore(store)
    for file in files:
        archive = shelf.import_from(file)
        echo(f"{archive.engine} {archive.key} is in {shelf.folder}")


def _hosts(names: tuple[str, ...], inventory: Path | None) -> list[Host]:
    if not names and inventory is None:
        step = "name a host, or add -i INVENTORY"
        raise CorralError("corral engine list", "no host named", step)
    found = inventories(inventory)
    print_mistakes([*found.mistakes, *(m for one in found.read for m in one.mistakes.values())])
    hosts = found.hosts
    known = {host.name for host in hosts}
    for name in names:
        if name not in known:
            raise CorralError(name, f"no such host{did_you_mean(name, known)}", "see inventories/")
    return [host for host in hosts if not names or host.name in names]


def _releases(host: Host) -> list[InstalledRelease] | str:
    """The releases of a host, or why there are none, as text."""
    try:
        return travelling_helper(host).ask(["releases"], RELEASES, HOST_PATHS.model_dump_json())
    except CorralError as error:
        return str(error)


def _named(store: ArchiveStore, key: str) -> Archive:
    found = [archive for archive in store.all() if archive.key.startswith(key)]
    if len(found) == 1:
        return found[0]
    hint = did_you_mean(key, {archive.key for archive in store.all()})
    what = f"{len(found)} archives match" if found else f"no such archive{hint}"
    raise CorralError(key, what, "see `corral engine archives`")
