"""Removal of whole folders that never reaches into what is mounted below them."""

import os
import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
# How the kernel writes blanks and backslashes in a path (proc(5)).
ESCAPED = re.compile(r"\\([0-7]{3})")


def mount_points():
    """Real paths of everything that is mounted, bind mounts included."""
    lines = MOUNTS.read_text().splitlines()
    return {ESCAPED.sub(lambda found: chr(int(found[1], 8)), line.split()[4]) for line in lines}


def remove_tree(folder, mounts=None):
    """Remove a folder with its contents; returns mounts that stay, with the folders above them.

    What is mounted may be shared with other hosts, such as a cache of compiled objects.
    """
    mounts = mount_points() if mounts is None else mounts
    if os.path.realpath(folder) in mounts:
        return [Path(folder)]
    left = []
    for entry in sorted(Path(folder).iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            left += remove_tree(entry, mounts)
        elif os.path.realpath(entry) in mounts and not entry.is_symlink():
            left.append(entry)
        else:
            entry.unlink()
    if not left:
        Path(folder).rmdir()
    return left
