"""Alerts faster than in production: every duration of the monitoring divided by one number.

Windows, `for`, horizons, the interval of scrapes and the timer of figures keep their proportions,
so that each rule sees as many samples as in production. Only copies of a checkout are changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SHIPPED = 1
SCRAPE_SECONDS, FIGURES_SECONDS, AGAIN_SECONDS = 15, 30, 600
EDITED = (
    "corral/monitoring/rules.py",
    "corral/planning/prometheus.py",
    "templates/corral_metrics.timer.j2",
    "files/corral_host/monitoring/drift.py",
)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_WINDOW = re.compile(r"(?<=\[)(\d+)([smhd])(?=\])")
# Seconds that stand in expressions as numbers: the horizon of a prediction, the age of a file.
_NUMBERS = re.compile(r"(?<=, )86400(?=\))|(?<=> )300\b")
_HOOK = """

_shipped_rules = rules


def rules() -> dict[str, Any]:
    from lab.alerts.pace import faster_rules

    return faster_rules(_shipped_rules(), {times})
"""


def faster_rules(document: dict[str, Any], times: int) -> dict[str, Any]:
    """The rules file with every duration divided."""
    groups = [
        {**group, "rules": [_faster(rule, times) for rule in group["rules"]]}
        for group in document["groups"]
    ]
    return {"groups": groups}


def faster_expression(expression: str, times: int) -> str:
    """An expression of Prometheus with its windows and horizons divided."""
    windows = _WINDOW.sub(lambda found: _divided(found.group(), times), expression)
    return _NUMBERS.sub(lambda found: f"{int(found.group()) / times:g}", windows)


def _faster(rule: dict[str, Any], times: int) -> dict[str, Any]:
    return {
        **rule,
        "expr": faster_expression(rule["expr"], times),
        "for": _divided(rule["for"], times),
    }


def _divided(duration: str, times: int) -> str:
    seconds = int(duration[:-1]) * _UNITS[duration[-1]]
    return f"{round(1000 * seconds / times)}ms"


def apply(checkout: Path, times: int) -> dict[Path, str]:
    """Make the monitoring that a copy of the checkout deploys so many times faster.

    Returns the texts that it replaced.
    """
    if times == SHIPPED:
        return {}
    before = {checkout / name: (checkout / name).read_text() for name in EDITED}
    rules, scrapes, timer, drift = before
    rules.write_text(before[rules] + _HOOK.format(times=times))
    interval = _divided(f"{SCRAPE_SECONDS}s", times)
    _edit(scrapes, f'"{SCRAPE_SECONDS}s"', f'"{interval}"')
    period = "OnUnitInactiveSec={:g}\n"
    _edit(timer, period.format(FIGURES_SECONDS), period.format(FIGURES_SECONDS / times))
    _edit(timer, "AccuracySec=5\n", f"AccuracySec={5 / times:g}\n")
    again = "AGAIN_SECONDS = {:g}\n"
    _edit(drift, again.format(AGAIN_SECONDS), again.format(AGAIN_SECONDS / times))
    return before


@contextmanager
def applied(checkout: Path, times: int) -> Iterator[None]:
    """As `apply`, until the block ends."""
    before = apply(checkout, times)
    try:
        yield
    finally:
        for path, text in before.items():
            path.write_text(text)


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    if old not in text:
        raise SystemExit(f"{path} does not have {old!r}; adapt lab/alerts/pace.py")
    path.write_text(text.replace(old, new))
