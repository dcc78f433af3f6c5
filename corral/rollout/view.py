"""Views of a running rollout: a live table on a terminal, else lines."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from corral.host.activation_report import Report, format_report
from corral.remote.progress import Progress, ProgressLines
from corral.rollout.journal import Rollout, Step
from corral.terminal import Rows, coloured, plain

_LINES_KEPT = 8


class View(Protocol):
    """A view; its methods are called by several threads."""

    def print_line(self, line: str) -> None:
        """Show a line about the rollout."""

    def on_progress(self, name: str, progress: Progress) -> None:
        """Show progress of HOST/INSTANCE."""

    def ended(self, report: Report) -> None:
        """Show the report of an activation or a revert."""


class LineView:
    """A view as lines, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lines = ProgressLines(self.print_line)

    def print_line(self, line: str) -> None:
        self._console.print(plain(line), soft_wrap=True)

    def on_progress(self, name: str, progress: Progress) -> None:
        self._lines(name, progress)

    def ended(self, report: Report) -> None:
        for line in format_report(report):
            self.print_line(
                f"{report.host}/{line}" if line.startswith(report.instance) else f"  {line}"
            )


class LiveView:
    """A table that is redrawn twice a second: wave, instance, phase, seconds, detail."""

    def __init__(self, console: Console, rollout: Rollout) -> None:
        self._steps = rollout.steps
        self._waves = {name: wave.name for wave in rollout.waves for name in wave.hosts}
        self._progress: dict[str, tuple[Progress, float]] = {}
        self._reports: dict[str, Report] = {}
        self._lines: list[str] = []
        self._lock = threading.Lock()
        self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=2)

    def __enter__(self) -> LiveView:
        self._live.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self._live.stop()

    def print_line(self, line: str) -> None:
        with self._lock:
            self._lines = [*self._lines, line][-_LINES_KEPT:]

    def on_progress(self, name: str, progress: Progress) -> None:
        with self._lock:
            self._progress[name] = (progress, time.monotonic())
            self._reports.pop(name, None)

    def ended(self, report: Report) -> None:
        with self._lock:
            self._reports[report.name] = report

    def _draw(self) -> Group:
        with self._lock:
            rows = [(step, self._row(step)) for step in self._steps]
            lines = list(self._lines)
        table = Rows("wave", "instance", "phase", "seconds", "detail")
        for step, (phase, seconds, detail) in rows:
            wave = self._waves[step.host].removeprefix("wave ")
            table.add(wave, step.name, phase, seconds, detail[:80])
        return Group(table, *(plain(line) for line in lines))

    def _row(self, step: Step) -> tuple[str | Text, str, str]:
        if report := self._reports.get(step.name):
            colour = "green" if report.ok else "red"
            reason = (report.reason.splitlines() or [""])[0]
            return coloured(report.outcome, colour), f"{report.seconds:.0f}", reason
        if step.name not in self._progress:
            return "", "", ""
        progress, at = self._progress[step.name]
        if progress.silent_seconds:
            return (
                coloured("no answer", "yellow"),
                f"{progress.silent_seconds:.0f}",
                progress.detail,
            )
        # The clock runs on between two answers.
        return (
            progress.phase,
            f"{progress.seconds + time.monotonic() - at:.0f}",
            progress.detail or progress.line,
        )
