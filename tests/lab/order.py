"""Order test files for the workers: the longest first.

So no worker has a long file left when the others have ended. Durations are kept from run to run,
outside the checkout; before the first run a file's size is used instead.
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
    """File name -> seconds of its tests in the last complete run."""
    try:
        found: dict[str, float] = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return found


def longest_first(items: list[pytest.Item], seconds: Mapping[str, float]) -> None:
    """Sort tests by their files; files without a duration come first."""
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
        """Add the duration of a test's phase."""
        self.seconds[Path(report.location[0]).name] += report.duration  # type: ignore[assignment]

    def keep(self, path: Path = KEPT) -> None:
        """Write durations for the next run; those of files that did not run stay."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps({**kept(path), **self.seconds}, indent=1))
        partial.rename(path)
