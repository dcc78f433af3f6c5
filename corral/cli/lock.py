"""`corral lock`: pin what the inventories use; `--check`: see that it is pinned."""

from __future__ import annotations

from pathlib import Path

import click

from corral.cli.select import all_hosts, inventories
from corral.errors import CorralError
from corral.lock.lock_file import read_lock, stale, wanted_by, write_lock
from corral.project import LOCK_FILE, project_root, read_catalog
from corral.terminal import say


@click.command()
@click.argument("inventory", type=click.Path(path_type=Path), required=False)
@click.option("--check", is_flag=True, help="Change nothing; fail when the lock file is stale.")
def lock(inventory: Path | None, check: bool) -> None:
    """Resolve models and engines of INVENTORY and write corral.lock.

    Without one: of all of inventories/ but examples.
    """
    root = project_root()
    catalog, path = read_catalog(root), root / LOCK_FILE
    hosts = all_hosts(inventory)
    if not hosts:
        what = "no hosts are described, but in examples, which are read when they are named"
        raise CorralError("corral lock", what, "`corral lock INVENTORY`")
    old = read_lock(path)
    if check:
        problems = stale(old, catalog, wanted_by(hosts, catalog))
        if problems:
            command = f"corral lock {inventory}" if inventory else "corral lock"
            raise CorralError(LOCK_FILE, "; ".join(problems), f"run `{command}`, read the diff")
        say(f"{LOCK_FILE} has all that {len(hosts)} hosts need")
        return
    # The hub's client takes longer to import than most commands to run.
    from corral.lock.resolve import resolve

    new = resolve(old, catalog, hosts)
    if new == old:
        say(f"{LOCK_FILE} is current{_scope(inventory)}")
        return
    write_lock(path, new)
    say(f"{LOCK_FILE} written. Next: read `git diff {LOCK_FILE}`, commit it")


def _scope(inventory: Path | None) -> str:
    """Which inventories were read where none was named."""
    if inventory:
        return ""
    read = ", ".join(str(one.path) for one in inventories(None).read)
    return f" for {read}; others, and examples, are read when they are named"
