"""Progress of jobs in a terminal: one line a job that is redrawn; elsewhere lines of a log."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live

from corral.remote.meter import Meters, format_meter
from corral.remote.progress import Progress, ProgressLines, format_progress
from corral.terminal import echo, plain

OnNamedProgress = Callable[[str, Progress], None]


class ProgressRows:
    """The newest progress of each job, as a line."""

    def __init__(self) -> None:
        self._meters, self._lines = Meters(), dict[str, str]()
        self._lock = threading.Lock()

    def __call__(self, name: str, progress: Progress) -> None:
        """Note progress; called by several threads."""
        with self._lock:
            meter = self._meters.read(name, progress.tail[-1:])
            known = format_meter(meter) if meter and not progress.silent_seconds else ""
            if line := known or format_progress(progress):
                self._lines[name] = f"{name}: {line}"

    def draw(self) -> Group:
        """One line for each job."""
        with self._lock:
            return Group(*(plain(line) for line in self._lines.values()))


@contextmanager
def progress_shown(terminal: Console) -> Iterator[OnNamedProgress]:
    """What to call with a job's name and its progress, until the block ends."""
    if not terminal.is_terminal:
        yield ProgressLines(echo)
        return
    rows = ProgressRows()
    with Live(get_renderable=rows.draw, console=terminal, refresh_per_second=2, transient=True):
        yield rows
