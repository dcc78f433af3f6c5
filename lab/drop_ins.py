"""Faults in a server's start, as a drop-in that a distribution could ship.

A deploy refuses any other drop-in. Each is in a file system in memory, so a reboot, by which the
lab simulates a power cut, removes the fault. A link to such a file would stay, and systemd enables
no unit whose drop-in is a broken link.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable

_SHIPPED = "/usr/lib/systemd/system"


def lay(units: Iterable[str], line: str) -> str:
    """A script that adds a line to [Service] of each unit; systemd has to read it afterwards."""
    text = shlex.quote(f"[Service]\n{line}\n")
    steps = []
    for folder in map(_folder, units):
        mount = f"mount -t tmpfs -o size=64k,mode=755 drop-in {folder}"
        steps.append(f"mkdir -p {folder} && {{ mountpoint -q {folder} || {mount}; }}")
        steps.append(f"printf %s {text} > {folder}/lab.conf")
    return " && ".join(steps)


def lift(units: Iterable[str]) -> str:
    """A script that removes the drop-ins, also after a reboot removed the faults."""
    folders = " ".join(map(_folder, units))
    gone = 'if mountpoint -q "$folder"; then umount "$folder"; fi && rm -rf "$folder"'
    return f"for folder in {folders}; do {gone}; done && systemctl daemon-reload"


def _folder(unit: str) -> str:
    return f"{_SHIPPED}/{unit}.d"
