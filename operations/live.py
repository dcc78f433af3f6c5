"""Progress of a deploy: on a terminal a line for each job below the log, elsewhere in the log.

pyinfra draws a spinner in the same place, which is off where there are such lines.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager

from rich.console import Console
from rich.file_proxy import FileProxy
from rich.live import Live

from corral.remote.meter import Meter
from corral.remote.progress import Progress, ProgressLines, ProgressRows
from corral.terminal import console

OnNamedProgress = Callable[[str, Progress], None]


class _AboveLines(FileProxy):
    """Standard error whose lines are printed above what is drawn.

    click writes past a stream without an encoding (click/_compat.py), and rich's own has none.
    """

    encoding, errors = "utf-8", "replace"


class LiveLines:
    """The lines of all hosts; they are there while a job runs."""

    def __init__(self, terminal: Console) -> None:
        self._terminal = terminal
        self._rows = ProgressRows()
        self._live: Live | None = None
        self._stderr = sys.stderr
        self._jobs = 0

    @property
    def are_drawn(self) -> bool:
        """Whether there is a terminal to draw on."""
        return self._terminal.is_terminal

    @contextmanager
    def shown(self, host: str, say: Callable[[str], None]) -> Iterator[OnNamedProgress]:
        """What to call with a job's name and its progress; ``say``: prints a line of the log."""
        if not self.are_drawn:
            yield ProgressLines(say)
            return
        # Phases stay in the log; how far they are is drawn.
        lines, names = ProgressLines(say, seconds_between=math.inf), set[str]()

        def on_progress(name: str, progress: Progress) -> None:
            lines(name, progress)
            names.add(f"{host} {name}")
            self._rows(f"{host} {name}", progress)
            self._draw()

        with self._drawn(names):
            yield on_progress

    @contextmanager
    def metered(self, host: str, say: Callable[[Meter], None]) -> Iterator[Callable[[Meter], None]]:
        """What to call with how far a file is; ``say``: prints that without a terminal."""
        if not self.are_drawn:
            yield say
            return
        name = f"{host} file"

        def on_meter(meter: Meter) -> None:
            self._rows.show_meter(name, meter)
            self._draw()

        with self._drawn({name}):
            yield on_meter

    @contextmanager
    def _drawn(self, names: Set[str]) -> Iterator[None]:
        if self._live is None:
            self._live = Live(
                get_renderable=self._rows.draw, console=self._terminal, auto_refresh=False,
                transient=True, redirect_stdout=False, redirect_stderr=False,
            )  # fmt: skip
            self._live.start()
            self._stderr, sys.stderr = sys.stderr, _AboveLines(self._terminal, sys.stderr)
        self._jobs += 1
        try:
            yield
        finally:
            self._jobs -= 1
            self._rows.drop(names)
            self._draw()
            if not self._jobs and self._live:
                sys.stderr = self._stderr
                self._live.stop()
                self._live = None

    def _draw(self) -> None:
        if self._live:
            self._live.refresh()


LIVE = LiveLines(console(stderr=True))


def take_terminal() -> None:
    """Switch pyinfra's spinner off, where lines are drawn."""
    if LIVE.are_drawn:
        os.environ["PYINFRA_PROGRESS"] = "off"
