"""`corral export monitoring`: what a Prometheus needs to watch the whole inventory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from corral.cli.select import inventories, print_mistakes
from corral.errors import CorralError
from corral.files import make_folder, write_atomic
from corral.inventory.hosts import Host, Inventory
from corral.monitoring.files import Form, files, keyed
from corral.monitoring.scrape import LeftOut, Target
from corral.planning.fleet import plan_fleet
from corral.planning.load import load_planner
from corral.project import project_root
from corral.store.api_keys import keys_in, stored_keys
from corral.terminal import echo

_STEP = "choose another folder with -o"


def export_monitoring(form: Form, folder: Path | None, chosen: Path | None, *, force: bool) -> None:
    """Write configuration, targets, rules and keys into a folder.

    Raises CorralError before anything is written; a host that cannot be read is left out.
    """
    if folder is None:
        what = "writes several files, so it needs a folder"
        raise CorralError("corral export monitoring", what, "add -o FOLDER")
    if folder.exists() and not folder.is_dir():
        raise CorralError(str(folder), "is not a folder", _STEP)
    if not force and folder.is_dir() and any(folder.iterdir()):
        raise CorralError(str(folder), "is not empty", "add --force to replace its files")
    read = inventories(chosen)
    print_mistakes(read.mistakes)
    found = [one for inventory in read.read for one in _of(inventory)]
    scraped = [one for one in found if isinstance(one, Target)]
    if not scraped:
        _explain(found)
        what = "nothing of this inventory can be scraped"
        raise CorralError("corral export monitoring", what, "change one of these, then deploy")
    hosts = {host.name: host for host in read.hosts}
    keys = {path: _key(hosts[one.host], one) for path, one in keyed(scraped).items()}
    _write(folder, files(form, scraped), keys)
    _explain(found)
    echo(f"{folder}: {len(scraped)} targets. Keys are for the user of {form} alone:")
    echo(f"  chown -R {'prometheus' if form == 'prometheus' else 'USER'} {folder}/keys")


def _of(inventory: Inventory) -> list[Target | LeftOut]:
    planner = load_planner(project_root(), tolerant=True)
    return plan_fleet(inventory.hosts, planner, mistakes=inventory.mistakes).scraped()


def _key(host: Host, target: Target) -> str:
    """The first key, without a line end: a Prometheus sends the file as it is."""
    return keys_in(stored_keys(host, str(target.key)).text)[0]


def _explain(found: Sequence[Target | LeftOut]) -> None:
    for one in found:
        if isinstance(one, LeftOut):
            echo(f"left out: {one.name} {one.why}. Next: {one.next_step}", err=True)


def _write(folder: Path, texts: dict[str, str], keys: dict[str, str]) -> None:
    """Keys and targets first: a configuration that is read meanwhile finds what it names."""
    step = "free disk space there, then the same command again"
    modes = {"": 0o755, "keys": 0o700, "targets": 0o755, "rules": 0o755, "dashboards": 0o755}
    for part, mode in modes.items():
        make_folder(folder / part, mode=mode, next_step=step)
    for path, key in keys.items():
        write_atomic(folder / path, key, mode=0o600, next_step=step)
    for path, text in reversed(texts.items()):
        write_atomic(folder / path, text, next_step=step)
    for part, names in (("keys", keys), ("targets", texts)):
        for old in (folder / part).iterdir():
            if f"{part}/{old.name}" not in names:
                old.unlink()
