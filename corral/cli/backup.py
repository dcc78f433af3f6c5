"""`corral backup`, `corral restore`: the controller's own files, in one file."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click
from corral_shared.text import counted

from corral.backup.document import Backup
from corral.backup.restore import Restored, left_out, restore_backup
from corral.backup.write import write_backup
from corral.cli.select import Inventories, inventories, inventory_option, print_mistakes
from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.project import project_root
from corral.terminal import echo

_MIB = 1024**2
file_argument = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


@click.command()
@file_argument
@click.option(
    "--recipient", "recipients", multiple=True, metavar="KEY",
    help="Encrypt with age for this key (age1... or ssh-...); repeatable.",
)  # fmt: skip
@click.option("--archives", is_flag=True, help="Include the archives of engine releases.")
@inventory_option
def backup(file: Path, recipients: tuple[str, ...], archives: bool, inventory: Path | None) -> None:
    """Write what only this controller has to FILE.

    API keys, corral.lock, certificates, known ssh hosts, journals. Not ssh keys and tokens, and not
    the rest of the repository, which git has.
    """
    hosts = _hosts(inventories(inventory))
    done = write_backup(file, project_root(), hosts, recipients=recipients, archives=archives)
    echo(f"{file}: {_contents(done)}")
    if done.archives and not archives:
        size = sum(one.size_bytes for one in done.archives)
        echo(f"  without {counted(len(done.archives), 'archive')} of engine releases, "
             f"{size / _MIB:,.0f} MiB: add --archives, or build them again")  # fmt: skip
    if not recipients:
        echo("  not encrypted, and it holds API keys: add --recipient KEY (age)", err=True)


@click.command()
@file_argument
@click.option(
    "--identity", "identities", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
    help="File with the key of a recipient of an encrypted backup; repeatable.",
)  # fmt: skip
@click.option("--replace", is_flag=True, help="Replace files that differ; they are kept aside.")
@inventory_option
def restore(
    file: Path, identities: tuple[Path, ...], replace: bool, inventory: Path | None
) -> None:
    """Put the files of a backup where the inventories of this checkout want them.

    Nothing is written before the whole backup was proved. Exit code 1: files differ, or no
    inventory here has a place for them.
    """
    began = time.monotonic()
    hosts = _hosts(inventories(inventory))
    found = restore_backup(file, project_root(), hosts, identities=identities, replace=replace)
    _print(file, found, hosts, replace=replace)
    echo(f"restored in {time.monotonic() - began:.1f} s. Next: `corral status HOST`, then deploy")
    sys.exit(1 if found.differ or found.homeless else 0)


def _hosts(found: Inventories) -> list[Host]:
    """All hosts; a mistake in the data of one hides no other."""
    print_mistakes(found.mistakes)
    for one in found.read:
        print_mistakes(one.mistakes.values())
    return found.hosts


def _contents(backup: Backup) -> str:
    size = sum(file.size_bytes for file in backup.files)
    keys = sum(file.name.startswith("keys") for file in backup.files)
    files, hosts = counted(len(backup.files), "file"), counted(len(backup.known_hosts), "host")
    return f"{files} ({keys} of keys), {size / _MIB:,.1f} MiB, and the ssh keys of {hosts}"


def _print(file: Path, found: Restored, hosts: list[Host], *, replace: bool) -> None:
    echo(
        f"{file} of {found.backup.at}, by {found.backup.by}: "
        f"{counted(len(found.written), 'file')} restored, {len(found.same)} are there already, "
        f"{found.known_hosts} lines of known hosts added"
    )
    for name, path in found.differ.items():
        echo(f"  {name}: {path} is another file, and stays", err=True)
    if found.differ and not replace:
        echo("  Next: add --replace, which keeps these as NAME.before-restore", err=True)
    if found.homeless:
        absent = ", ".join(left_out(found, {host.name: host for host in hosts}))
        files = counted(len(found.homeless), "file")
        what = f"no place here for {files} ({absent or found.homeless[0]})"
        error = CorralError(
            str(file), what, f"`corral restore {file} -i INVENTORY` that names them"
        )
        echo(f"  {error}", err=True)
