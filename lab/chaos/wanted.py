"""What is wanted of the hard day's fleet: written by its driver, read by its inventory."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lab.layout import Layout

GATEWAY_PORT = 8000


@dataclass(frozen=True)
class Wanted:
    """Keys of every server's instance beside name, port and address."""

    instance: dict[str, Any] = field(default_factory=lambda: {"profile": "tiny-chaos"})


def wanted_file(layout: Layout) -> Path:
    """Beside the lab's record; goes with the lab."""
    return layout.state / "chaos.json"


def want(layout: Layout, wanted: Wanted) -> None:
    """Write what the next command of Corral's shall work towards."""
    partial = wanted_file(layout).with_suffix(".partial")
    partial.write_text(json.dumps(asdict(wanted)))
    partial.rename(wanted_file(layout))
