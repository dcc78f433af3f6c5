"""When each activation of a rollout ran, as bars between its beginning and its end."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Literal

from corral.host.activation_report import Report
from corral.rollout.journal import Rollout
from corral.schema import Frozen

Kind = Literal["kept", "failed", "reverted", "open"]
# So that a bar of a second in a rollout of an hour can still be seen.
_LEAST_PERCENT = 0.8


class Bar(Frozen):
    """One activation or revert; percents are of the whole rollout.

    + begin_seconds: since the rollout began, by the clock of the host; None where it is unknown
    """

    name: str
    wave: str
    kind: Kind
    outcome: str
    begin_seconds: float | None
    seconds: float
    begin_percent: float
    width_percent: float


class Timeline(Frozen):
    """All bars of a rollout, wave by wave."""

    seconds: float
    bars: tuple[Bar, ...]

    @property
    def waves(self) -> tuple[str, ...]:
        """Names of waves, in order."""
        return tuple(dict.fromkeys(bar.wave for bar in self.bars))


def timeline(rollout: Rollout) -> Timeline:
    """The bars of all that was activated or reverted, and of what was begun and did not report."""
    wave_of = {host: wave.name for wave in rollout.waves for host in wave.hosts}
    began = _moment(rollout.began_at)
    reports = (*rollout.reports, *rollout.reverts)
    times = [(one, _begin(one, began)) for one in reports]
    whole = _whole_seconds(rollout, began, times)
    order = list(wave_of.values())
    found = [
        _bar(one, begin, wave_of.get(one.host, ""), whole, revert=number >= len(rollout.reports))
        for number, (one, begin) in enumerate(times)
    ]
    found += [_unreported(name, wave_of, whole) for name in _unreported_names(rollout)]
    found.sort(key=lambda bar: order.index(bar.wave) if bar.wave in order else len(order))
    return Timeline(seconds=whole, bars=tuple(found))


def _bar(report: Report, begin: float | None, wave: str, whole: float, *, revert: bool) -> Bar:
    since = min(max(begin or 0, 0), whole)
    width = max(100 * min(report.seconds, whole - since) / whole, _LEAST_PERCENT)
    return Bar(
        name=report.name,
        wave=wave,
        kind="failed" if not report.ok else "reverted" if revert else "kept",
        outcome=f"reverted to {report.to}" if revert and report.ok else report.outcome,
        begin_seconds=begin,
        seconds=report.seconds,
        begin_percent=min(100 * since / whole, 100 - width),
        width_percent=width,
    )


def _unreported(name: str, wave_of: dict[str, str], whole: float) -> Bar:
    wave = wave_of.get(name.partition("/")[0], "")
    return Bar(name=name, wave=wave, kind="open", outcome="not reported", begin_seconds=None,
               seconds=whole, begin_percent=0, width_percent=100)  # fmt: skip


def _unreported_names(rollout: Rollout) -> list[str]:
    reported = {one.name for one in rollout.reports}
    return [name for name in rollout.begun if name not in reported]


def _whole_seconds(
    rollout: Rollout, began: datetime | None, times: Iterable[tuple[Report, float | None]]
) -> float:
    """From the beginning to the end, or to the last that is known; never 0."""
    ended = _moment(rollout.ended_at or "")
    known = [begin + one.seconds for one, begin in times if begin is not None]
    if began and ended:
        known.append((ended - began).total_seconds())
    return max([*known, 1.0])


def _begin(report: Report, began: datetime | None) -> float | None:
    at = _moment(report.at)
    # A clock that is days off would make every other bar a line.
    if at is None or began is None or abs(at - began) > timedelta(days=2):
        return None
    return (at - began).total_seconds()


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
