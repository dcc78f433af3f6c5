"""Engine releases for tests that are not about building: archives by key, outside the checkout."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from corral.store.engine_archives import ArchiveStore
from lab import locks
from tests.lab.workspace import Workspace

_DAY_SECONDS = 24 * 3600
# A release that no run used for so long belongs to an old pin.
_KEPT_SECONDS = 30 * _DAY_SECONDS
# Engine and key of each release of an inventory's hosts.
_WANTED = (
    "import json, sys; from pathlib import Path;"
    "from corral.inventory.hosts import load_inventory;"
    "from corral.planning.load import load_planner; from corral.project import project_root;"
    "planner, hosts = load_planner(project_root()), load_inventory(Path(sys.argv[1]));"
    "print(json.dumps([[r.engine, r.key] for host in hosts for r in planner.releases(host)]))"
)


@contextmanager
def releases_at_hand(lab: Workspace, inventory: str = "inventories/lab.py") -> Iterator[None]:
    """Deploy bare hosts in the block, with releases that were made once.

    Missing releases are built in the block and cached. Runs that miss one wait for each other.
    """
    store, kept, wanted = ArchiveStore(lab.layout.archives), _kept(lab), _wanted(lab, inventory)
    with ExitStack() as stack:
        if _missing(lab, kept, wanted):
            lock = kept.folder.with_suffix(".lock")
            stack.enter_context(locks.wait_for_others(lock, "building engines for tests"))
        if not _missing(lab, kept, wanted):
            # All releases were cached, or another run has built them: no run waits for this block.
            stack.close()
            _copy(kept, store, wanted)
        yield
        _copy(store, kept, wanted)
        _forget_unused(kept)


def _kept(lab: Workspace) -> ArchiveStore:
    return ArchiveStore(lab.layout.cache / "archives")


def _wanted(lab: Workspace, inventory: str) -> list[tuple[str, str]]:
    done = subprocess.run(
        [sys.executable, "-c", _WANTED, inventory], cwd=lab.path, check=True, capture_output=True,
        text=True, env={"PYTHONPATH": str(lab.path), "HOME": str(Path.home())},
    )  # fmt: skip
    return sorted({(engine, key) for engine, key in json.loads(done.stdout)})


def _missing(lab: Workspace, kept: ArchiveStore, wanted: list[tuple[str, str]]) -> bool:
    """Missing releases; tests of builds need the compiler cache that the first builds fill."""
    compiled = any(lab.layout.compiler_cache.glob("[0-9a-f]/*"))
    return not compiled or any(kept.find(*release) is None for release in wanted)


def _copy(source: ArchiveStore, target: ArchiveStore, wanted: list[tuple[str, str]]) -> None:
    """Copy what the target lacks, and mark the source's files as used now."""
    for release in wanted:
        archive = source.find(*release)
        if archive and not target.find(*release):
            received = target.incoming(*release)
            shutil.copyfile(source.path(archive), received)
            target.add(received, archive)
        if archive:
            source.path(archive).touch()


def _forget_unused(kept: ArchiveStore) -> None:
    for archive in kept.all():
        if time.time() - kept.path(archive).stat().st_mtime > _KEPT_SECONDS:
            kept.remove(archive)
