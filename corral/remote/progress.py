"""Progress of a job of the helper, as it is passed on and as lines of a log."""

from __future__ import annotations

import time
from collections.abc import Callable

from corral.host.answers import JobNews, Phase
from corral.schema import Frozen

SECONDS_BETWEEN_LINES = 5


class Progress(Frozen):
    """How a job goes while it runs; ``phase`` is empty between phases.

    + detail: of the phase, such as the generation that waits to be confirmed
    + silent_seconds: since the host last answered; + line: the last of its log, tail: the last few
    """

    phase: str = ""
    seconds: float = 0
    detail: str = ""
    line: str = ""
    silent_seconds: float = 0
    tail: tuple[str, ...] = ()


OnProgress = Callable[[Progress], None]


def progress_of(news: JobNews) -> Progress:
    """What the helper's `poll` gave, as it is passed on."""
    phase = news.phase or Phase()
    return Progress(
        phase=phase.name, seconds=phase.seconds, detail=phase.detail, line=news.last_line,
        tail=news.tail,
    )  # fmt: skip


class ProgressLines:
    """Progress as lines for a log: each phase once, then a line every few seconds."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._last: dict[str, tuple[str, str]] = {}
        self._next_at: dict[str, float] = {}

    def __call__(self, name: str, news: Progress) -> None:
        phase, before = self._last.get(name, ("", ""))
        line, now = _line(news), time.monotonic()
        is_due = news.phase != phase or now >= self._next_at.get(name, 0)
        if line and line != before and is_due:
            self._say(f"{name}: {line[:160]}")
            self._last[name] = (news.phase, line)
            self._next_at[name] = now + SECONDS_BETWEEN_LINES


def _line(news: Progress) -> str:
    if news.silent_seconds:
        return f"no answer for {news.silent_seconds:.0f} s; it goes on there ({news.detail})"
    if news.phase and (news.detail or news.line.endswith(f": {news.phase}")):
        return ": ".join(filter(None, (news.phase, news.detail)))
    return news.line
