"""A host's disk: an overlay of its own files on the shared base image.

The overlay is mounted in a mount namespace of the host's own, so that no mount outlives the host.
Source: the kernel's Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_MOUNT_THEN = 'mount -t overlay -o "$1" overlay "$2" && shift 2 && exec "$@"'
_DELETERS = 16


def make(disk: Path, base: Path) -> Path:
    """Make an empty disk on the base image; returns the folder of the host's own files."""
    for folder in ("own", "work", "root"):
        (disk / folder).mkdir(parents=True)
    # A host keeps its base image, even if a newer one is in the cache.
    (disk / "base").symlink_to(base)
    return disk / "own"


def root(disk: Path) -> Path:
    """Where the disk is mounted; seen by the host's own processes only."""
    return disk / "root"


def command_on(disk: Path, argv: Sequence[str]) -> list[str]:
    """The command line that runs argv with the disk mounted."""
    options = f"lowerdir={disk / 'base'},upperdir={disk / 'own'},workdir={disk / 'work'}"
    private = ["unshare", "--mount", "--propagation", "private"]
    return [*private, "sh", "-c", _MOUNT_THEN, "sh", options, str(root(disk)), *argv]


def remove(folder: Path) -> None:
    """Remove a folder of disks, many files at a time: each deletion may wait for the real disk."""
    files = [Path(below) / name for below, _, names in os.walk(folder) for name in names]
    with ThreadPoolExecutor(_DELETERS) as pool:
        list(pool.map(os.unlink, files))
    shutil.rmtree(folder)
