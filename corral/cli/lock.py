"""`corral lock`: pin the models and engines of inventories, or check that they are pinned."""

from __future__ import annotations

from pathlib import Path

import click

from corral.cli.select import all_hosts, inventories
from corral.errors import CorralError
from corral.lock.lock_file import read_lock, stale, wanted_by, write_lock
from corral.lock.requirements import FOLDER, RequirementsFiles, compile_all
from corral.project import LOCK_FILE, project_root, read_catalog
from corral.terminal import echo


@click.command()
@click.argument("inventory", type=click.Path(path_type=Path), required=False)
@click.option("--check", is_flag=True, help="Only check: fail when the lock file is stale.")
@click.option(
    "--renew", multiple=True, metavar="ENGINE",
    help="Take the newest distributions for this Python environment, whatever is locked.",
)  # fmt: skip
def lock(inventory: Path | None, check: bool, renew: tuple[str, ...]) -> None:
    """Pin models and engines of INVENTORY in corral.lock.

    Without INVENTORY: of all inventories/ except examples.
    """
    root = project_root()
    catalog, path = read_catalog(root), root / LOCK_FILE
    hosts = all_hosts(inventory)
    if not hosts:
        what = "no inventory has hosts, apart from examples, which are read only when named"
        raise CorralError("corral lock", what, "run `corral lock INVENTORY`")
    old, files = read_lock(path), RequirementsFiles(root)
    if check:
        wanted = wanted_by(hosts, catalog)
        problems = [*stale(old, catalog, wanted), *files.stale(old, wanted)]
        if problems:
            command = f"corral lock {inventory}" if inventory else "corral lock"
            raise CorralError(LOCK_FILE, "; ".join(problems), f"run `{command}`, read the diff")
        echo(f"{LOCK_FILE} has all entries that {len(hosts)} hosts need")
        return
    # The hub's client takes longer to import than most commands take to run.
    from corral.lock.resolve import resolve

    compiled = compile_all(old, catalog, hosts, files, renew=renew)
    entries = {name: one.entry for name, one in compiled.items()}
    new = resolve(old, catalog, hosts, environments=entries)
    # The files first: a lock never names a file that was not there.
    files.write(compiled)
    if new == old:
        echo(f"{LOCK_FILE} is current{_scope(inventory)}")
        return
    write_lock(path, new)
    files.remove_unused(new)
    changed = f"{LOCK_FILE} {FOLDER}" if compiled else LOCK_FILE
    echo(f"{LOCK_FILE} written. Next: read `git diff {changed}`, commit it")


def _scope(inventory: Path | None) -> str:
    """The inventories that were read where none was named."""
    if inventory:
        return ""
    read = ", ".join(str(one.path) for one in inventories(None).read)
    return f" for {read}; examples and other inventories are read only when named"
