"""Inventory keys of the hard day's fleet: written by its driver, read by its inventory."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from corral.files import write_atomic
from lab.layout import ROOM, Layout

GATEWAY_PORT = 8000
Keys = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """Keys in the inventory, beside the fixed ones.

    + instance: for every server's instance; + own: host -> for its instance; + gateway: for that
    + hosts: host -> of the host itself
    """

    instance: Keys = field(default_factory=lambda: {"profile": "tiny-chaos"})
    own: dict[str, Keys] = field(default_factory=dict)
    gateway: Keys = field(default_factory=dict)
    hosts: dict[str, Keys] = field(default_factory=dict)


def wanted_file(layout: Layout) -> Path:
    """Path of the file, beside the lab's record; it is removed with the lab."""
    return layout.state / "chaos.json"


def want(layout: Layout, wanted: Wanted) -> None:
    """Write the keys for the next command of Corral."""
    write_atomic(wanted_file(layout), json.dumps(asdict(wanted)), next_step=ROOM)
