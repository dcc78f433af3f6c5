"""Faults in a server's start, as a drop-in that a distribution could ship.

A deploy refuses any other drop-in, and names it. Each lies in a file system in memory: a reboot,
which is how the lab plays a power cut, takes the fault away. A link to such a file would stay, and
systemd enables no unit whose drop-in is a link that leads nowhere.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable

_SHIPPED = "/usr/lib/systemd/system"


def lay(units: Iterable[str], line: str) -> str:
    """A script: one line more in the [Service] of each unit, once systemd has read it."""
    text = shlex.quote(f"[Service]\n{line}\n")
    steps = []
    for folder in map(_folder, units):
        mount = f"mount -t tmpfs -o size=64k,mode=755 drop-in {folder}"
        steps.append(f"mkdir -p {folder} && {{ mountpoint -q {folder} || {mount}; }}")
        steps.append(f"printf %s {text} > {folder}/lab.conf")
    return " && ".join(steps)


def lift(units: Iterable[str]) -> str:
    """A script that takes them away again, also after a reboot took the faults."""
    folders = " ".join(map(_folder, units))
    gone = 'if mountpoint -q "$folder"; then umount "$folder"; fi && rm -rf "$folder"'
    return f"for folder in {folders}; do {gone}; done && systemctl daemon-reload"


def _folder(unit: str) -> str:
    return f"{_SHIPPED}/{unit}.d"
