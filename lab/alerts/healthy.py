"""No alert in a healthy lab under load: the shipped rules, intervals and timers, for so long."""

from __future__ import annotations

import time
from dataclasses import dataclass

from lab.alerts.clients import counted, steady
from lab.alerts.host import Watched, load_average
from lab.alerts.timeline import Seen, seen
from lab.chaos.fleet import NAME

# One request a second.
_PAUSE_SECONDS = 1.0
# Figures and rates of the time before the load are over by then.
_SETTLE_SECONDS = 60
_LOOK_SECONDS = 30


@dataclass(frozen=True)
class Healthy:
    """What was seen in a healthy time.

    + alerts: each that was pending or fired; + looks: evaluations in which all targets were up
    + slowest_share: the lowest tokens/s of ten minutes, beside the baseline
    + loads: load averages of this machine, the lowest and the highest
    """

    minutes: float
    began: float
    asked: int
    failed: int
    alerts: tuple[Seen, ...]
    targets_down: int
    baseline: float
    slowest_share: float | None
    loads: tuple[float, float]

    @property
    def is_quiet(self) -> bool:
        """Whether no alert fired."""
        return not any(one.firing_seconds is not None for one in self.alerts)


def watch(watched: Watched, minutes: float) -> Healthy:
    """Send one request a second for so many minutes, and see which alerts come."""
    loads, down = [], 0
    with steady(watched, pause_seconds=_PAUSE_SECONDS):
        time.sleep(_SETTLE_SECONDS)
        began = time.time()
        while time.time() < began + 60 * minutes:
            time.sleep(_LOOK_SECONDS)
            loads.append(load_average())
            down += len([1 for _, up in watched.prometheus.values("up") if not up])
        ended = time.time()
        answers = counted(watched)
    baseline = _one(watched, _BASELINE)
    slowest = _one(watched, _slowest(minutes))
    return Healthy(
        minutes=minutes,
        began=began,
        asked=answers["asked"],
        failed=answers["failed"],
        alerts=seen(watched.prometheus.spans(began, ended), began),
        targets_down=down,
        baseline=baseline or 0.0,
        slowest_share=slowest / baseline if slowest and baseline else None,
        loads=(min(loads), max(loads)),
    )


_BASELINE = (
    'min by (instance) (corral_baseline_tokens_per_second{measure=~"generation.*",'
    f'instance="{NAME}"}})'
)


def _slowest(minutes: float) -> str:
    """The lowest rate of ten minutes within the time."""
    rate = (
        "rate(llamacpp:tokens_predicted_total[10m]) / "
        "rate(llamacpp:tokens_predicted_seconds_total[10m])"
    )
    return f"min_over_time(({rate})[{round(minutes)}m:1m])"


def _one(watched: Watched, query: str) -> float | None:
    found = watched.prometheus.values(query)
    return found[0][1] if found else None
