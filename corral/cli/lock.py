"""`corral lock`: pin the models and engines of inventories, or check that they are pinned."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import click
from corral_shared.text import counted

from corral.catalog.entries import Catalog
from corral.cli.select import Inventories, inventories, print_replaced
from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.lock.lock_file import Lock, read_lock, stale, wanted_by, write_lock
from corral.lock.moves import moves
from corral.lock.requirements import FOLDER, RequirementsFiles, compile_all
from corral.planning.load import read_catalog, requirements_files
from corral.project import LOCK_FILE, project_root
from corral.schema import did_you_mean
from corral.terminal import echo


@click.command()
@click.argument("inventory", type=click.Path(path_type=Path), required=False)
@click.option("--check", is_flag=True, help="Only check: fail when the lock file is stale.")
@click.option(
    "--update", multiple=True, metavar="MODEL|ENGINE",
    help="Take what its branch, tag or index has now; without it, what is locked stays locked.",
)  # fmt: skip
@click.option("--renew", multiple=True, hidden=True)
def lock(
    inventory: Path | None, check: bool, update: tuple[str, ...], renew: tuple[str, ...]
) -> None:
    """Pin models and engines of INVENTORY in corral.lock.

    Without INVENTORY: of all inventories/ except examples and the lab.
    """
    command = f"corral lock {inventory}" if inventory else "corral lock"
    if renew:
        named = " ".join(f"--update {name}" for name in renew)
        raise CorralError("--renew", "is called --update now", f"`{command} {named}`")
    root = project_root()
    catalog, path = read_catalog(root), root / LOCK_FILE
    print_replaced(catalog)
    found = _inventories(inventory)
    hosts = found.hosts
    old, files = read_lock(path), requirements_files(root)
    if check:
        _check(catalog, old, files, hosts, command)
        return
    _refuse_unused(update, catalog, hosts, command)
    # The hub's client takes longer to import than most commands take to run.
    from corral.lock.resolve import resolve

    again = [name for name in update if name in catalog.engines and catalog.engines[name].python]
    compiled = compile_all(old, catalog, hosts, files, renew=again)
    entries = {name: one.entry for name, one in compiled.items()}
    new = resolve(
        old, catalog, hosts, environments=entries, update=update, note=echo, command=command
    )
    # The files first: a lock never names a file that was not there.
    files.write(compiled)
    if new == old:
        echo(f"{LOCK_FILE} is current{_scope(inventory, found)}")
        return
    write_lock(path, new)
    files.remove_unused(new)
    changed = f"{LOCK_FILE} {FOLDER}" if compiled else LOCK_FILE
    echo(f"{LOCK_FILE} written. Next: read `git diff {changed}`, commit it")
    for sentence in moves(old, new, catalog, _affected(inventory, hosts)):
        echo(f"  {sentence}")


def _inventories(chosen: Path | None) -> Inventories:
    """The inventories to lock for. Raises CorralError at the first mistake, or without a host."""
    found = inventories(chosen)
    if chosen is None:
        found = _without_lab(found)
    for mistake in (*found.mistakes, *(m for one in found.read for m in one.mistakes.values())):
        raise mistake
    if not found.hosts:
        what = "no inventory has hosts, apart from examples and labs, which are read when named"
        paths = sorted(str(one.path) for one in inventories(None).all_read)
        known = f", such as `corral lock {paths[0]}`" if paths else " with a file of yours"
        raise CorralError("corral lock", what, f"run `corral lock INVENTORY`{known}")
    return found


def _without_lab(found: Inventories) -> Inventories:
    own = tuple(one for one in found.read if not one.is_disposable)
    return Inventories(own, found.mistakes, found.examples)


def _check(
    catalog: Catalog, lock: Lock, files: RequirementsFiles, hosts: Sequence[Host], command: str
) -> None:
    wanted = wanted_by(hosts, catalog)
    problems = [*stale(lock, catalog, wanted), *files.stale(lock, wanted)]
    if problems:
        raise CorralError(
            "corral lock --check", "\n  ".join(["differences:", *problems]),
            f"run `{command}`, read the diff",
        )  # fmt: skip
    echo(f"{LOCK_FILE} has all entries of {counted(len(hosts), 'host')}")


def _refuse_unused(
    update: Collection[str], catalog: Catalog, hosts: Sequence[Host], command: str
) -> None:
    """Raises CorralError for a name that is no model or engine of these hosts."""
    wanted = wanted_by(hosts, catalog)
    known = {*wanted.engines, *(model for model, _ in wanted.quants)}
    for name in update:
        if name not in known:
            what = f"these hosts use no model or engine of that name{did_you_mean(name, known)}"
            step = f"`{command} --update {sorted(known)[0]}`" if known else "name an inventory"
            raise CorralError(f"--update {name}", what, step)


def _affected(chosen: Path | None, hosts: Iterable[Host]) -> list[Host]:
    """All hosts that the lock file is for: those of other inventories share its entries."""
    by_name = {host.name: host for host in hosts}
    others = _without_lab(inventories(None)).hosts if chosen else []
    return list({**{host.name: host for host in others}, **by_name}.values())


def _scope(chosen: Path | None, found: Inventories) -> str:
    """The inventories that were read where none was named."""
    if chosen:
        return ""
    read = ", ".join(str(one.path) for one in found.read)
    return f" for {read}; examples, labs and other inventories are read only when named"
