"""Progress of jobs in a terminal: one line a job that is redrawn; elsewhere lines of a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live

from corral.remote.progress import Progress, ProgressLines, ProgressRows
from corral.terminal import echo

OnNamedProgress = Callable[[str, Progress], None]


@contextmanager
def progress_shown(terminal: Console) -> Iterator[OnNamedProgress]:
    """What to call with a job's name and its progress, until the block ends."""
    if not terminal.is_terminal:
        yield ProgressLines(echo)
        return
    rows = ProgressRows()
    with Live(get_renderable=rows.draw, console=terminal, refresh_per_second=2, transient=True):
        yield rows
