"""Play one fault: its alert fires, the fault is repaired, the alert ends."""

from __future__ import annotations

import time
from dataclasses import dataclass

from lab.alerts.clients import steady
from lab.alerts.faults import Cause
from lab.alerts.host import Watched
from lab.alerts.timeline import Seen, seen

# What takes as long in this lab as in production, such as a deploy, and what a busy machine adds.
_UNHURRIED_SECONDS = 120
# The longest window of a rule that an alert beside the last one may need to end.
_QUIET_SECONDS = 7200


@dataclass(frozen=True)
class Row:
    """Result of a fault. Times are in seconds of this lab; see the record for how fast it was.

    + pending_seconds, firing_seconds: since the fault; + resolved_seconds: since the repair began
    + others: alerts that fired beside it; + wrong: why it is not as it should be, or empty
    """

    name: str
    alert: str
    fault: str
    pending_seconds: float | None
    firing_seconds: float | None
    resolved_seconds: float | None
    others: tuple[str, ...]
    wrong: str


def play(watched: Watched, cause: Cause) -> Row:
    """Play one fault under a steady load; no alert is active before and after it."""
    prometheus, alert = watched.prometheus, cause.alert
    with steady(watched):
        limit = watched.seconds(_QUIET_SECONDS) + _UNHURRIED_SECONDS
        quiet = prometheus.wait(lambda active: not active, limit_seconds=limit)
        if not quiet:
            raise SystemExit(f"before {cause.name}: active already: {prometheus.active()}")
        began = time.time()
        with cause.make(watched):
            fired = prometheus.wait(
                lambda active: active.get(alert) == "firing",
                limit_seconds=watched.seconds(cause.limit_seconds) + _UNHURRIED_SECONDS,
            )
            repaired = time.time()
        over = prometheus.wait(
            lambda active: alert not in active,
            limit_seconds=watched.seconds(cause.resolved_seconds) + _UNHURRIED_SECONDS,
        )
        ended = time.time()
    found = seen(prometheus.spans(began, ended), began)
    own = next((one for one in found if one.alert == alert), None)
    return Row(
        name=cause.name,
        alert=alert,
        fault=cause.fault,
        pending_seconds=own.pending_seconds if own else None,
        firing_seconds=own.firing_seconds if own else None,
        resolved_seconds=_resolved(own, repaired - began) if own and over else None,
        others=tuple(sorted(one.alert for one in found if one != own and _fired(one))),
        wrong="" if fired and over else "it never fired" if not fired else "it did not end",
    )


def _fired(one: Seen) -> bool:
    return one.firing_seconds is not None


def _resolved(own: Seen, repaired_seconds: float) -> float:
    return round(max(0.0, own.ended_seconds - repaired_seconds), 1)
