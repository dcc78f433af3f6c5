"""Progress of a job of the helper, as events and as log lines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from rich.console import Group

from corral.host.answers import JobStatus, Phase
from corral.remote.meter import Meter, Meters, format_meter
from corral.schema import Frozen
from corral.terminal import plain

SECONDS_BETWEEN_LINES = 5


class Progress(Frozen):
    """Job progress event; ``phase``: empty between phases.

    + detail: of the phase, such as the generation that waits for confirmation
    + silent_seconds: time since the host's last answer; + line: last line of the log
    + tail: last few lines of the log
    """

    phase: str = ""
    seconds: float = 0
    detail: str = ""
    line: str = ""
    silent_seconds: float = 0
    tail: tuple[str, ...] = ()


OnProgress = Callable[[Progress], None]


def progress_of(status: JobStatus) -> Progress:
    """The progress event for an answer of the helper's `poll`."""
    phase = status.phase or Phase()
    return Progress(
        phase=phase.name, seconds=phase.seconds, detail=phase.detail, line=status.last_line,
        tail=status.tail,
    )  # fmt: skip


class ProgressLines:
    """Progress as log lines: each phase once, then one line every few seconds, bars included."""

    def __init__(
        self, print_line: Callable[[str], None], seconds_between: float = SECONDS_BETWEEN_LINES
    ) -> None:
        self._print_line, self._seconds_between = print_line, seconds_between
        self._last: dict[str, tuple[str, str]] = {}
        self._next_at: dict[str, float] = {}
        self._meters = Meters()

    def __call__(self, name: str, progress: Progress) -> None:
        phase, last_line = self._last.get(name, ("", ""))
        meter = None if progress.silent_seconds else self._meters.read(name, progress.tail[-1:])
        line = format_meter(meter) if meter else format_progress(progress)
        now = time.monotonic()
        is_due = progress.phase != phase or now >= self._next_at.get(name, 0)
        if line and line != last_line and is_due:
            self._print_line(f"{name}: {line[:160]}")
            self._last[name] = (progress.phase, line)
            self._next_at[name] = now + self._seconds_between


class ProgressRows:
    """The newest progress of each job, as a line to be drawn; called by several threads."""

    def __init__(self) -> None:
        self._meters, self._lines = Meters(), dict[str, str]()
        self._lock = threading.Lock()

    def __call__(self, name: str, progress: Progress) -> None:
        """Note progress of a job."""
        with self._lock:
            meter = self._meters.read(name, progress.tail[-1:])
            known = format_meter(meter) if meter and not progress.silent_seconds else ""
            if line := known or format_progress(progress):
                self._lines[name] = f"{name}: {line}"

    def show_meter(self, name: str, meter: Meter) -> None:
        """Note a meter that is timed already."""
        with self._lock:
            self._lines[name] = f"{name}: {format_meter(meter)}"

    def drop(self, names: Iterable[str]) -> None:
        """Forget jobs that have ended."""
        with self._lock:
            for name in names:
                self._lines.pop(name, None)

    def draw(self) -> Group:
        """One line for each job."""
        with self._lock:
            return Group(*(plain(line) for line in self._lines.values()))


def format_progress(progress: Progress) -> str:
    """Progress as one line of text."""
    if progress.silent_seconds:
        silent = f"no answer for {progress.silent_seconds:.0f} s"
        return f"{silent}; the host continues ({progress.detail})"
    if progress.phase and (progress.detail or progress.line.endswith(f": {progress.phase}")):
        return ": ".join(filter(None, (progress.phase, progress.detail)))
    return progress.line
