"""Faults in a server's start, as a drop-in that a distribution could ship.

A deploy refuses any other drop-in, and names it. The text lies in /run: a reboot, which is how the
lab plays a power cut, takes the fault away.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable

_SHIPPED = "/usr/lib/systemd/system"
_TEXTS = "/run/corral-lab-drop-ins"


def lay(units: Iterable[str], line: str) -> str:
    """A script: one line more in the [Service] of each unit, once systemd has read it."""
    text = shlex.quote(f"[Service]\n{line}\n")
    steps = [f"mkdir -p {_TEXTS}"]
    for unit in units:
        folder = f"{_SHIPPED}/{unit}.d"
        steps.append(f"printf %s {text} > {_TEXTS}/{unit}.conf && mkdir -p {folder}")
        steps.append(f"ln -sfn {_TEXTS}/{unit}.conf {folder}/lab.conf")
    return " && ".join(steps)


def lift(units: Iterable[str]) -> str:
    """A script that takes them away again."""
    gone = " ".join(f"{_SHIPPED}/{unit}.d {_TEXTS}/{unit}.conf" for unit in units)
    return f"rm -rf {gone}; systemctl daemon-reload"
