"""Runs of settings in an order in which a drifting machine favours none, and their gains.

A spread block is begun, divided and ended by runs of the current setting: each other run is
compared with what the current setting would have reached at that moment, between the two runs
around it. A paired block has pairs of the current setting and another one, each second pair the
other way round.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from corral_shared.welch import student

Setting = tuple[int, ...]
"""The number of the choice in each dimension; 0 is the current one."""

Objective = Literal["answer", "prompt", "first_token"]
OBJECTIVES: tuple[Objective, ...] = ("answer", "prompt", "first_token")

Gain = Mapping[Objective, float]
"""Logarithm of the ratio to the current setting; more is better, also for times."""

# Other runs between two of the current setting.
_BETWEEN = 4


@dataclass(frozen=True, slots=True)
class TimedRun:
    """One run: when it began, and the logarithm of each figure; None where it failed."""

    setting: Setting
    at_seconds: float
    values: Gain | None


def current(dimensions: int) -> Setting:
    """The current setting."""
    return (0,) * dimensions


def spread(settings: Sequence[Setting]) -> tuple[Setting, ...]:
    """The order of a spread block."""
    parts = math.ceil(len(settings) / _BETWEEN)
    own = current(len(settings[0]))
    order = [own]
    for n in range(parts):
        first, end = (len(settings) * part // parts for part in (n, n + 1))
        order += [*settings[first:end], own]
    return tuple(order)


def pairs(setting: Setting, number: int) -> tuple[Setting, ...]:
    """The order of a paired block."""
    own = current(len(setting))
    return tuple(
        one for n in range(number) for one in ((own, setting) if n % 2 == 0 else (setting, own))
    )


def spread_gains(runs: Sequence[TimedRun]) -> Iterator[tuple[Setting, Gain]]:
    """The gain of each run of a spread block that has a run of the current setting around it."""
    known = [(run.at_seconds, run.values) for run in runs if not any(run.setting) and run.values]
    for run in runs:
        if any(run.setting) and run.values and known:
            before = [one for one in known if one[0] <= run.at_seconds]
            after = [one for one in known if one[0] > run.at_seconds]
            first = before[-1] if before else after[0]
            last = after[0] if after else first
            yield run.setting, _against(run.values, _between(first, last, run.at_seconds))


def paired_gains(runs: Sequence[TimedRun]) -> Iterator[tuple[Setting, Gain]]:
    """The gain of each whole pair of a paired block."""
    for one, other in zip(runs[::2], runs[1::2], strict=False):
        own, another = (other, one) if any(one.setting) else (one, other)
        if own.values and another.values and not any(own.setting):
            yield another.setting, _against(another.values, own.values)


def _between(first: tuple[float, Gain], last: tuple[float, Gain], at: float) -> Gain:
    """Figures of the current setting at a moment between two of its runs."""
    length = last[0] - first[0]
    share = (at - first[0]) / length if length > 0 else 0.0
    return {key: value + share * (last[1][key] - value) for key, value in first[1].items()}


def _against(values: Gain, own: Gain) -> Gain:
    return {key: value - own[key] for key, value in values.items()}


def logarithms(
    answers: Iterable[float], prompts: Iterable[float], first_token_seconds: float
) -> Gain:
    """The objectives of a run as logarithms; more is better, so times are negative.

    + answers, prompts: tokens/s of each length
    """
    return {
        "answer": statistics.fmean(map(math.log, answers)),
        "prompt": statistics.fmean(map(math.log, prompts)),
        "first_token": -math.log(first_token_seconds),
    }


def mean(gains: Sequence[Gain]) -> Gain:
    """The mean of each objective; ``gains`` is not empty."""
    return {key: statistics.fmean(gain[key] for gain in gains) for key in gains[0]}


def margin(values: Sequence[float]) -> float:
    """Half of the 95% interval of a mean; infinite with less than two values."""
    if len(values) < 2:
        return math.inf
    return student(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def ratio(gain: float) -> float:
    """By how much a figure is larger, 0.1 for 10% more."""
    return math.exp(gain) - 1
