"""The alerts of the hard day: its gateway host watches the fleet, and each row says what it saw."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from corral.monitoring.rules import ALERTS
from lab.alerts import pace
from lab.alerts.prometheus import Prometheus
from lab.alerts.timeline import Seen, seen
from lab.chaos.fleet import Fleet
from lab.chaos.wanted import Keys
from lab.layout import GATEWAY, Layout

# A hard day's fault lasts a minute, and most rules wait for minutes. More would cost the servers
# processor time, which the rows measure.
TIMES = 5
# The longest that an alert may take to end after a row, and its figures to come.
_QUIET_SECONDS = 60
# Hosts have folders of this machine's disk, which others fill. lab.alerts has a disk of its own.
_OF_THIS_MACHINE = {"CorralDiskFull"}


def monitored(servers: int) -> Callable[[Layout], Mapping[int, Keys]]:
    """Keys of a fleet's hosts by which the gateway's Prometheus watches all of them."""

    def hosts(layout: Layout) -> dict[int, Keys]:
        numbers = range(1, servers + 1)
        own: dict[int, Keys] = {
            n: {"monitoring": {"address": str(layout.address(n))}} for n in numbers
        }
        return {**own, GATEWAY: {"monitoring": {"prometheus": {}}}}

    return hosts


@dataclass(frozen=True)
class Watch:
    """The alerts of a fleet since a moment, in Unix seconds."""

    prometheus: Prometheus
    began: float

    @classmethod
    def begin(cls, fleet: Fleet) -> Watch:
        """Watch from now on, if possible when the alerts of the row before have ended."""
        prometheus = Prometheus(fleet.layout, GATEWAY, pace.SCRAPE_SECONDS / TIMES)
        prometheus.wait(
            lambda active: not active.keys() - _OF_THIS_MACHINE, limit_seconds=_QUIET_SECONDS
        )
        return cls(prometheus, time.time())

    def missed(self, alert: str) -> list[str]:
        """Wait until an alert fires; what is wrong if it does not."""
        (minutes,) = (one.minutes for one in ALERTS if one.name == alert)
        fired = self.prometheus.wait(
            lambda active: active.get(alert) == "firing",
            limit_seconds=60 * minutes / TIMES + _QUIET_SECONDS,
        )
        return [] if fired else [f"{alert} did not fire"]

    def seen(self, since: float) -> tuple[Seen, ...]:
        """What came since the watch began, counted from ``since``.

        An alert that was there already says nothing of this row.
        """
        before = self.began - 2 * self.prometheus.step_seconds
        spans = self.prometheus.spans(before, time.time())
        old = {span.alert for span in spans if span.began < self.began} | _OF_THIS_MACHINE
        return seen((span for span in spans if span.alert not in old), since)
