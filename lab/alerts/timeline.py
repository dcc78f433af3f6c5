"""When alerts were pending and fired, counted from a moment. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lab.alerts.prometheus import Span


@dataclass(frozen=True)
class Seen:
    """An alert in a span of time; seconds since its beginning, None for never."""

    alert: str
    pending_seconds: float | None
    firing_seconds: float | None
    ended_seconds: float


def seen(spans: Iterable[Span], began: float) -> tuple[Seen, ...]:
    """One row for each alert, whatever number of series it had; in the order they came.

    One that fires at once was never pending: then both are the same moment.
    """
    by_name: dict[str, list[Span]] = {}
    for span in spans:
        by_name.setdefault(span.alert, []).append(span)
    found = [_seen(name, ones, began) for name, ones in by_name.items()]
    return tuple(sorted(found, key=lambda one: (one.pending_seconds or 0.0, one.alert)))


def _seen(name: str, spans: list[Span], began: float) -> Seen:
    firing = [span.began for span in spans if span.state == "firing"]
    return Seen(
        alert=name,
        pending_seconds=_since(began, min(span.began for span in spans)),
        firing_seconds=_since(began, min(firing)) if firing else None,
        ended_seconds=_since(began, max(span.ended for span in spans)),
    )


def _since(began: float, at: float) -> float:
    return round(max(0.0, at - began), 1)
