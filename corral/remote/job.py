"""Follow a job of the helper to its end, over links that may be cut and hosts that reboot."""

from __future__ import annotations

import time
from collections.abc import Callable

from corral.errors import CorralError
from corral.host.answers import NEWS, JobNews, Phase
from corral.inventory.hosts import Host
from corral.remote.asking import UnreachedError
from corral.remote.installed import ask
from corral.schema import Frozen

# A helper that answers with errors, as while a host boots; a cut link may last longer.
ERRORS_SECONDS = 60
SECONDS_BETWEEN_LINES = 5
# Of a run whose result is not there any more, as the next job of that name began.
REPLACED = "it ended, and another one began. Next: run the same command again"
_PAUSE_SECONDS = 2


class News(Frozen):
    """What is heard of a job while it runs; ``phase`` is empty between phases.

    + detail: of the phase, such as the generation that waits to be confirmed
    + silent_seconds: since the host was last heard
    """

    phase: str = ""
    seconds: float = 0
    detail: str = ""
    line: str = ""
    silent_seconds: float = 0


Hear = Callable[[News], None]


def follow(
    host: Host, helper: str, name: str, *, run: str | None, patience_seconds: float, hear: Hear
) -> JobNews:
    """The last news of a run of a job, as the helper's ``poll`` gives it.

    + run: its id, None where the helper gave none
    Once the news are those of another run, ours ended, and how is not in them.
    Each question is a connection of its own. Raises the last error once the host was silent for
    ``patience_seconds``, or its helper failed for a minute.
    """
    offset, heard_at = 0, time.monotonic()
    while True:
        try:
            news = ask(host, helper, ["poll", name, str(offset)], NEWS)
        except CorralError as error:
            silent = time.monotonic() - heard_at
            limit = patience_seconds if isinstance(error, UnreachedError) else ERRORS_SECONDS
            if silent > min(limit, patience_seconds):
                raise
            hear(News(detail=error.what, silent_seconds=silent))
            time.sleep(_PAUSE_SECONDS)
            continue
        heard_at = time.monotonic()
        if run is not None and news.run != run:
            return _replaced(news, run)
        if not news.running:
            return news
        offset = news.offset
        hear(_news(news))


def _replaced(news: JobNews, run: str) -> JobNews:
    ended = {"running": False, "ok": False, "answer": None, "error": REPLACED}
    return news.model_copy(update={**ended, "unsettled": news.unsettled_run == run})


def _news(news: JobNews) -> News:
    phase = news.phase or Phase()
    return News(phase=phase.name, seconds=phase.seconds, detail=phase.detail, line=news.last_line)


class Heard:
    """News as lines for a log: each phase once, then a line every few seconds."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._last: dict[str, tuple[str, str]] = {}
        self._next_at: dict[str, float] = {}

    def __call__(self, name: str, news: News) -> None:
        phase, before = self._last.get(name, ("", ""))
        line, now = _line(news), time.monotonic()
        is_due = news.phase != phase or now >= self._next_at.get(name, 0)
        if line and line != before and is_due:
            self._say(f"{name}: {line[:160]}")
            self._last[name] = (news.phase, line)
            self._next_at[name] = now + SECONDS_BETWEEN_LINES


def _line(news: News) -> str:
    if news.silent_seconds:
        return f"no answer for {news.silent_seconds:.0f} s; it goes on there ({news.detail})"
    if news.phase and (news.detail or news.line.endswith(f": {news.phase}")):
        return ": ".join(filter(None, (news.phase, news.detail)))
    return news.line
