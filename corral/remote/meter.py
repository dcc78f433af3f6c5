"""How far a job is: bytes, rate and time left, read from its log. For display alone."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

from corral.schema import Frozen

_BAR_CELLS = 20
_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SIZE = r"([0-9]{1,6}(?:\.[0-9]{1,3})?)(B|KiB|MiB|GiB|TiB)"
# A summary line of aria2: [#2089b0 400.0KiB/33.2MiB(1%) CN:4 DL:115.7KiB ETA:4m51s]
_ARIA2 = re.compile(
    rf"\[#\w{{1,16}} {_SIZE}/{_SIZE}\([0-9]{{1,3}}%\)(?: CN:[0-9]+)?(?: DL:{_SIZE})?"
)
# What the helper says of hashing and copying: proving 45% of NAME
_PERCENT = re.compile(r"(proving|hashing|copying) ([0-9]{1,3})% of (\S.*)")
# Ninja, and make by CMake: [12/345] Building, [ 45%] Building
_NINJA = re.compile(r"\[([0-9]{1,7})/([0-9]{1,7})\] ")
_CMAKE = re.compile(r"\[ ?([0-9]{1,3})%\] ")


class Meter(Frozen):
    """Part of a whole; ``what``: what is done, equal from line to line; None where unknown."""

    what: str
    fraction: float
    done_bytes: int | None = None
    total_bytes: int | None = None
    bytes_per_second: float | None = None
    left_seconds: float | None = None


def read_meter(lines: Sequence[str]) -> Meter | None:
    """The meter of the last line that has one; None if none of the last few has."""
    return next(filter(None, map(_of_line, reversed(lines))), None)


class Meters:
    """Meters of several jobs, with the time that is left of each."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: dict[str, tuple[str, float, float]] = {}

    def read(self, name: str, lines: Sequence[str]) -> Meter | None:
        """The meter of a job; ``lines``: the last of its log."""
        found = read_meter(lines)
        return self.timed(name, found) if found else None

    def timed(self, name: str, found: Meter) -> Meter:
        """A meter with its rate and the time left, from what was gained since it began."""
        what, fraction, at = self._first.get(name, ("", 0.0, 0.0))
        if what != found.what or fraction > found.fraction:
            self._first[name] = (found.what, found.fraction, self._clock())
            return found
        gained, seconds = found.fraction - fraction, self._clock() - at
        if gained <= 0 or seconds <= 0:
            return found
        left = (1 - found.fraction) * seconds / gained
        own = found.bytes_per_second
        rate = own or (found.total_bytes * gained / seconds if found.total_bytes else None)
        return found.model_copy(update={"left_seconds": left, "bytes_per_second": rate})


def format_meter(meter: Meter) -> str:
    """A bar with its figures, as one line."""
    filled = round(_BAR_CELLS * meter.fraction)
    parts = [f"[{'#' * filled}{'.' * (_BAR_CELLS - filled)}] {100 * meter.fraction:.0f}%"]
    if meter.done_bytes is not None and meter.total_bytes is not None:
        parts.append(f"{_size(meter.done_bytes)} of {_size(meter.total_bytes)}")
    if meter.bytes_per_second:
        parts.append(f"{_size(meter.bytes_per_second)}/s")
    if meter.left_seconds is not None:
        parts.append(f"{_duration(meter.left_seconds)} left")
    return f"{', '.join(parts)}: {meter.what}"


def _of_line(line: str) -> Meter | None:
    if found := _ARIA2.search(line):
        done, total = _bytes(found[1], found[2]), _bytes(found[3], found[4])
        rate = _bytes(found[5], found[6]) if found[5] else None
        return Meter(what="fetching", fraction=_share(done, total), done_bytes=done,
                     total_bytes=total, bytes_per_second=rate)  # fmt: skip
    if found := _PERCENT.search(line):
        return Meter(what=f"{found[1]} {found[3]}", fraction=_share(int(found[2]), 100))
    if found := _NINJA.match(line):
        return Meter(what="building", fraction=_share(int(found[1]), int(found[2])))
    if found := _CMAKE.match(line):
        return Meter(what="building", fraction=_share(int(found[1]), 100))
    return None


def _share(part: int, whole: int) -> float:
    return min(part / whole, 1) if whole else 0


def _bytes(number: str, unit: str) -> int:
    return int(float(number) * _UNITS[unit])


def _size(size: float) -> str:
    unit = next((u for u, many in reversed(_UNITS.items()) if size >= many), "B")
    return f"{size / _UNITS[unit]:.{0 if unit == 'B' else 1}f} {unit}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
