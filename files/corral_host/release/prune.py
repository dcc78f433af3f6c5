"""Remove releases that nothing uses any more, and leftovers of killed jobs."""

import shutil
import time
from pathlib import Path

from corral_host.release.archive import SUFFIX
from corral_host.release.build_user import ENVIRONMENT, SOURCE
from corral_host.release.locks import pruning
from corral_host.release.releases import release_folders, unused_releases, wanted
from corral_host.system.folders import REMOVED, remove

QUIET_SECONDS = 600


def prune(plan):
    """Remove releases that no generation, process or plan uses; returns what was removed.

    Raises HostError while a release is built or installed.
    """
    with pruning(plan["paths"]["state"]):
        doomed = [*unused_releases(plan), *leftovers(plan)]
        for path in doomed:
            discard(path)
    return [str(path) for path in doomed]


def leftovers(plan):
    """Leftovers of killed jobs: folders, archives and objects that no plan needs."""
    keys = {release["key"] for release in wanted(plan)}
    state = Path(plan["paths"]["state"])
    packed = state.glob(f"archives/*{SUFFIX}*")
    archives = [f for f in packed if f.name not in {f"{key}{SUFFIX}" for key in keys} and rests(f)]
    objects = [f for f in state.glob("build/*/*") if f.name not in {SOURCE, *keys}]
    hidden = [f for f in release_folders(plan["paths"], hidden=True) if not is_kept(f, keys)]
    return [*hidden, *sorted(archives), *sorted(objects)]


def is_kept(folder, keys):
    """Whether it has what was fetched for a planned release that is not installed yet."""
    key = folder.name[len(ENVIRONMENT) :] if folder.name.startswith(ENVIRONMENT) else ""
    return key in keys and not folder.with_name(key).exists()


def rests(path):
    """Whether a file is not being written: another deploy may just be sending it."""
    return time.time() - path.stat().st_mtime > QUIET_SECONDS


def discard(path):
    if path.name.startswith(REMOVED):
        shutil.rmtree(path)
    elif path.is_dir():
        remove(path)
    else:
        path.unlink()
