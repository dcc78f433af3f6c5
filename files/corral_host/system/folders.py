"""Folders that are installed and removed as a whole."""

import contextlib
import errno
import os
import shutil

from corral_host.system.commands import HostError, rename, sync
from corral_host.system.modes import open_folder

STAGING = ".staging-"
REMOVED = ".removed-"


@contextlib.contextmanager
def staging_for(final):
    """A fresh folder beside ``final``, removed at the end unless it was put in place.

    Leftovers of a killed attempt are removed first.
    """
    staging = final.with_name(STAGING + final.name)
    for leftover in (staging, final.with_name(REMOVED + final.name)):
        if leftover.exists():
            shutil.rmtree(leftover)
    open_folder(staging)
    try:
        yield staging
    except OSError as fault:
        if fault.errno != errno.ENOSPC:
            raise
        raise HostError(
            f"{final.parent}: disk full; nothing was installed",
            "free space there, run the same deploy again",
        ) from fault
    finally:
        if staging.exists():
            shutil.rmtree(staging)


def put_in_place(staging, final):
    """Put a folder in place by one rename; a damaged one that is there is removed first."""
    remove(final)
    rename(staging, final)


def remove(folder):
    """Remove a folder; it is renamed first, so a half removed one is never taken for whole."""
    if folder.exists():
        doomed = folder.with_name(REMOVED + folder.name)
        if doomed.exists():
            shutil.rmtree(doomed)
        os.replace(folder, doomed)
        shutil.rmtree(doomed)
        sync(folder.parent)


def sync_all(folder):
    """Flush every file and folder below a folder to the disk."""
    for root, _, names in os.walk(folder):
        for name in names:
            sync(os.path.join(root, name))
        sync(root)
