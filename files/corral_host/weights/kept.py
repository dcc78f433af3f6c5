"""Files of weights that Corral put on this host: each has a receipt beside it."""

import contextlib
import os
import shutil
from pathlib import Path

from corral_shared.names import MARKER, RECEIPT, STAGING

from corral_host.weights.models_root import models_root, record, root_fault


def proved_files(root):
    """Files of weights below a folder that have a receipt, sorted."""
    found = []
    for folder, below, names in os.walk(root):
        if STAGING in below:
            below.remove(STAGING)
        there = set(names)
        owned = (name[: -len(RECEIPT)] for name in names if name.endswith(RECEIPT))
        found += [Path(folder) / name for name in owned if name in there]
    return sorted(found)


def discard(path, root):
    """Remove a file with its receipt, and folders below the root that are empty then."""
    # The receipt goes last: a file without one would be nobody's.
    path.unlink(missing_ok=True)
    Path(f"{path}{RECEIPT}").unlink(missing_ok=True)
    for folder in path.parents:
        if folder == root or root not in folder.parents:
            return
        try:
            folder.rmdir()
        except OSError:
            return


def remove_all(paths):
    """Remove all weights that Corral put here; files of others in the folder stay."""
    root = models_root(paths)
    if root_fault(paths) is None and root.is_dir():
        for path in proved_files(root):
            discard(path, root)
        shutil.rmtree(root / STAGING, ignore_errors=True)
        (root / MARKER).unlink(missing_ok=True)
        # A mount, or a folder with files of others.
        with contextlib.suppress(OSError):
            root.rmdir()
    record(paths).unlink(missing_ok=True)
