"""Files of tests in the order in which workers shall take them: the longest first.

None has a long one left then when the others have ended. How long each took is kept from run to
run, outside the checkout; before the first run its size stands for it.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from lab.layout import Layout
from tests.lab.workspace import CHECKOUT

KEPT = Layout.of(CHECKOUT).cache / "test-seconds.json"


def kept(path: Path = KEPT) -> dict[str, float]:
    """File's name -> seconds of its tests in the last whole run."""
    try:
        found: dict[str, float] = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return found


def longest_first(items: list[pytest.Item], seconds: Mapping[str, float]) -> None:
    """Sort tests by their files; one that no run has measured yet comes before all others."""
    items.sort(
        key=lambda item: (
            -seconds.get(item.path.name, math.inf), -item.path.stat().st_size, item.path.name,
        )
    )  # fmt: skip


class Stopwatch:
    """Adds up how long the tests of each file take, on whichever worker."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    def note(self, report: pytest.TestReport) -> None:
        """A phase of a test that ended."""
        self.seconds[Path(report.location[0]).name] += report.duration  # type: ignore[assignment]

    def keep(self, path: Path = KEPT) -> None:
        """For the next run; what this one did not measure stays."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps({**kept(path), **self.seconds}, indent=1))
        partial.rename(path)
