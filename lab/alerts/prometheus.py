"""The Prometheus of a lab, asked on its own host over ssh: it listens on loopback alone."""

from __future__ import annotations

import json
import shlex
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from lab import ssh
from lab.layout import Layout

_API = "http://127.0.0.1:9090/api/v1"
_PAUSE_SECONDS = 0.5
_ANSWER_SECONDS, _RETRIES = 20, 3


@dataclass(frozen=True)
class Span:
    """An alert of one series, from its first to its last evaluation in a state; Unix seconds."""

    alert: str
    state: str
    labels: dict[str, str]
    began: float
    ended: float


@dataclass(frozen=True)
class Prometheus:
    """The Prometheus on host n; ``step_seconds``: how often it evaluates its rules."""

    layout: Layout
    n: int
    step_seconds: float

    def active(self) -> dict[str, str]:
        """Alert -> "firing", or "pending" where none of its series fires."""
        found: dict[str, str] = {}
        for one in self._get("alerts")["alerts"]:
            name = one["labels"]["alertname"]
            found[name] = "firing" if "firing" in (found.get(name), one["state"]) else "pending"
        return found

    def values(self, query: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series of a query, now."""
        (found,) = self.answers(query)
        return [(one["metric"], float(one["value"][1])) for one in found]

    def answers(self, *queries: str) -> list[list[dict[str, Any]]]:
        """The series of each query, now, as Prometheus has them; all over one connection."""
        asked = [_url("query", query=query) for query in queries]
        return [data["result"] for data in self._all(*asked)]

    def has(self, query: str) -> bool:
        """Whether a query has a series now."""
        return bool(self.values(query))

    def targets(self) -> dict[str, str]:
        """Job -> "up" if all of its targets are, or how one of them is else."""
        found: dict[str, str] = {}
        for one in self._get("targets", state="active")["activeTargets"]:
            job = one["labels"]["job"]
            found[job] = one["health"] if found.get(job, "up") == "up" else found[job]
        return found

    def spans(self, began: float, ended: float) -> list[Span]:
        """When which alert was pending or fired, in order."""
        document = self._get(
            "query_range", query="ALERTS", start=f"{began:.3f}", end=f"{ended:.3f}",
            step=f"{self.step_seconds:g}",
        )  # fmt: skip
        found = [span for series in document["result"] for span in self._spans_of(series)]
        return sorted(found, key=lambda span: (span.began, span.alert, span.state))

    def wait(self, holds: Callable[[dict[str, str]], bool], *, limit_seconds: float) -> bool:
        """Wait until the active alerts are as wanted; whether they were in time."""
        deadline = time.monotonic() + limit_seconds
        while not holds(self.active()):
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE_SECONDS)
        return True

    def _spans_of(self, series: dict[str, Any]) -> list[Span]:
        labels = dict(series["metric"])
        alert, state = labels.pop("alertname"), labels.pop("alertstate")
        labels.pop("__name__", None)
        times = [at for at, _ in series["values"]]
        gaps = [n for n, (one, next_) in enumerate(pairwise(times), 1)
                if next_ - one > 1.5 * self.step_seconds]  # fmt: skip
        return [
            Span(alert, state, labels, times[first], times[last - 1])
            for first, last in pairwise([0, *gaps, len(times)])
        ]

    def _get(self, path: str, **parameters: str) -> Any:
        """Data of an answer. Raises CorralError."""
        (data,) = self._all(_url(path, **parameters))
        return data

    def _all(self, *urls: str) -> list[Any]:
        """Data of each answer; a busy host gets some more attempts. Raises CorralError."""
        # curl puts a line end behind each answer, which has none itself.
        command = (
            "curl --silent --show-error --fail --fail-early --write-out '\\n' "
            f"--max-time {_ANSWER_SECONDS} --retry {_RETRIES} --retry-connrefused "
            f"{shlex.join(urls)}"
        )
        text = ssh.run_on(
            self.layout, self.n, command, timeout_seconds=(_RETRIES + 2) * _ANSWER_SECONDS
        )
        return [json.loads(line)["data"] for line in text.splitlines()]


def _url(path: str, **parameters: str) -> str:
    return f"{_API}/{path}?{urllib.parse.urlencode(parameters)}"
