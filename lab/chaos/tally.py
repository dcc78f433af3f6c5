"""Results of a load's requests, and their summary."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path


class Outcome(StrEnum):
    """How a request ended; all but the first count as failed."""

    GOOD = "good"
    REFUSED = "refused"  # no connection
    CUT = "cut"  # connected, but the answer was not complete
    STATUS = "status"  # answered, but not with 200
    TIMEOUT = "timeout"
    ERROR = "error"  # an error, or no valid reply, in a stream that began with 200


@dataclass(frozen=True)
class Reply:
    """Result of one request. Times are time.monotonic(), which all processes of a machine share.

    + first_token_seconds: None if there was none; + pieces: number of stream pieces with text
    + reused: it used a connection that an earlier request had opened
    """

    began_seconds: float
    first_token_seconds: float | None
    ended_seconds: float
    pieces: int
    outcome: Outcome
    detail: str
    reused: bool


@dataclass(frozen=True)
class Summary:
    """Summary of many requests.

    + longest_gap_seconds: the longest time between two good replies
    + recovery_seconds: from the first failed request to the first good reply after the last one;
      0.0 if none failed, None if no good reply followed
    """

    asked: int
    failed: int
    failures: dict[str, int]
    longest_gap_seconds: float
    recovery_seconds: float | None
    median_seconds: float | None
    slowest_seconds: float | None
    first_token_median_seconds: float | None


def read(path: Path) -> list[Reply]:
    """The results in a load's file, sorted by start; a line that is being written is skipped."""
    lines = path.read_text().split("\n")[:-1]
    replies = [_reply(line) for line in lines]
    return sorted(replies, key=lambda reply: reply.began_seconds)


def _reply(line: str) -> Reply:
    fields = json.loads(line)
    return Reply(**{**fields, "outcome": Outcome(fields["outcome"])})


def summary(replies: Iterable[Reply]) -> Summary:
    """Summarize the requests."""
    asked = sorted(replies, key=lambda reply: reply.began_seconds)
    good = [reply for reply in asked if reply.outcome is Outcome.GOOD]
    failed = [reply for reply in asked if reply.outcome is not Outcome.GOOD]
    first_tokens = [
        reply.first_token_seconds - reply.began_seconds
        for reply in good
        if reply.first_token_seconds is not None
    ]
    lengths = [reply.ended_seconds - reply.began_seconds for reply in good]
    return Summary(
        asked=len(asked),
        failed=len(failed),
        failures=dict(Counter(_kind(reply) for reply in failed)),
        longest_gap_seconds=_longest_gap(good),
        recovery_seconds=_recovery(good, failed),
        median_seconds=_median(lengths),
        slowest_seconds=max(lengths, default=None),
        first_token_median_seconds=_median(first_tokens),
    )


def _kind(reply: Reply) -> str:
    return f"{reply.outcome} {reply.detail}" if reply.outcome is Outcome.STATUS else reply.outcome


def _longest_gap(good: Sequence[Reply]) -> float:
    ends = sorted(reply.ended_seconds for reply in good)
    return max((later - earlier for earlier, later in pairwise(ends)), default=0.0)


def _recovery(good: Sequence[Reply], failed: Sequence[Reply]) -> float | None:
    if not failed:
        return 0.0
    last = max(reply.began_seconds for reply in failed)
    after = [reply.ended_seconds for reply in good if reply.began_seconds > last]
    return min(after) - failed[0].began_seconds if after else None


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None
