"""Durations and moments as operators type them."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import click

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,9})(s|m|min|h|d)?", re.ASCII)
# Longer is a slip; timers of a host take any number of years.
_MOST_SECONDS = 366 * 86400
_WORDS = ("today", "yesterday")
_CLOCK = re.compile(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?", re.ASCII)


def seconds_of(text: str) -> int | None:
    """The seconds of ``90``, ``90s``, ``5m``, ``5min``, ``2h`` or ``1d``; None for other text."""
    found = _DURATION.fullmatch(text)
    if found is None:
        return None
    return int(found[1]) * _UNITS[found[2] or "s"]


class Duration(click.ParamType[int]):
    """An option in seconds, or with a unit, such as 5m; + least_seconds: the least allowed."""

    name = "duration"

    def __init__(self, least_seconds: int = 0) -> None:
        self._least_seconds = least_seconds

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The seconds."""
        seconds = value if isinstance(value, int) else seconds_of(str(value))
        if seconds is None:
            self.fail(f"{value!r} is not a duration, such as 90, 90s, 5m, 2h or 1d", param, ctx)
        if not self._least_seconds <= seconds <= _MOST_SECONDS:
            least = f"at least {self._least_seconds} s" if seconds < self._least_seconds else ""
            self.fail(f"{value!r} must be {least or 'at most a year'}", param, ctx)
        return seconds


class Moment(click.ParamType[str]):
    """A past moment, as journalctl(1) takes it: a duration before now, a time of day, or a date."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The argument of ``--since``; times without a zone are the host's."""
        text = str(value).removesuffix(" ago").strip()
        seconds = seconds_of(text)
        if seconds is not None:
            return f"-{seconds}s"
        if text in _WORDS or _CLOCK.fullmatch(text):
            return text
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(
                f"{value!r} is not a moment, such as 10m, 2h, 14:30, today, 2026-11-30 or "
                "2026-11-30T14:30:00Z",
                param,
                ctx,
            )
        return f"@{moment.timestamp():.0f}" if moment.tzinfo else f"{moment:%Y-%m-%d %H:%M:%S}"
