"""Progress of a job of the helper, as events and as log lines."""

from __future__ import annotations

import time
from collections.abc import Callable

from corral.host.answers import JobStatus, Phase
from corral.remote.meter import Meters, format_meter
from corral.schema import Frozen

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

    def __init__(self, print_line: Callable[[str], None]) -> None:
        self._print_line = print_line
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
            self._next_at[name] = now + SECONDS_BETWEEN_LINES


def format_progress(progress: Progress) -> str:
    """Progress as one line of text."""
    if progress.silent_seconds:
        silent = f"no answer for {progress.silent_seconds:.0f} s"
        return f"{silent}; the host continues ({progress.detail})"
    if progress.phase and (progress.detail or progress.line.endswith(f": {progress.phase}")):
        return ": ".join(filter(None, (progress.phase, progress.detail)))
    return progress.line
