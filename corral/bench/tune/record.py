"""What was measured of an instance while it was tuned, and what follows from it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Literal

from corral.bench.result import Moment, Subject
from corral.bench.tune.gains import (
    OBJECTIVES,
    Gain,
    Objective,
    Setting,
    TimedRun,
    logarithms,
    mean,
    paired_gains,
    spread_gains,
)
from corral.bench.tune.search import Known
from corral.bench.tune.space import Candidate, Space
from corral.host.answers import Moment as MachineState
from corral.host.answers import TunedRun, TuneFigures
from corral.schema import Frozen


class Requests(Frozen):
    """The requests of each run.

    + prompt_tokens: lengths of prompts, one after the other; + repeat: of each length
    + concurrency: requests at once, of the first length
    """

    prompt_tokens: tuple[int, ...]
    answer_tokens: int
    concurrency: int
    repeat: int = 1


class KeptRun(Frozen):
    """One run; ``choices``: dimension -> choice, where it was not the current one.

    + digest: of the candidate; + figures: None where the server did not serve; ``error``: why
    + before, after: the machine
    """

    choices: dict[str, str]
    digest: str
    at_seconds: float
    seconds: float
    figures: TuneFigures | None
    error: str = ""
    before: MachineState = MachineState()
    after: MachineState = MachineState()


class KeptBlock(Frozen):
    """Runs that were made together, in their order."""

    began_at: Moment
    seconds: float
    paired: bool
    runs: tuple[KeptRun, ...]


class Record(Subject):
    """All runs of one instance with one release, profile and kind of requests."""

    test: Literal["tune"] = "tune"
    where: Literal["beside", "stopped"]
    requests: Requests
    blocks: tuple[KeptBlock, ...] = ()

    @property
    def run_seconds(self) -> float | None:
        """Mean time of a run, with its share of what a block takes; None before the first."""
        runs = sum(len(block.runs) for block in self.blocks)
        return sum(block.seconds for block in self.blocks) / runs if runs else None

    def known(self, space: Space) -> Known:
        """Gains by setting; runs of settings that would run otherwise by now are left out."""
        looks: dict[Setting, list[Gain]] = defaultdict(list)
        pairs: dict[Setting, list[Gain]] = defaultdict(list)
        failed: set[Setting] = set()
        for block in self.blocks:
            runs = [run for one in block.runs if (run := _timed(one, space))]
            failed |= {run.setting for run in runs if run.values is None and any(run.setting)}
            into, gains = (pairs, paired_gains) if block.paired else (looks, spread_gains)
            for setting, gain in gains(runs):
                into[setting].append(gain)
        return Known(looks, pairs, frozenset(failed))

    def current(self, space: Space) -> Gain | None:
        """Logarithms of the figures of the current setting, on average; None before a run."""
        runs = [_timed(run, space) for block in self.blocks for run in block.runs]
        found = [run.values for run in runs if run and run.values and not any(run.setting)]
        return mean(found) if found else None


def kept_run(run: TunedRun, choices: dict[str, str], digest: str) -> KeptRun:
    """A run of the host's answer, with its setting."""
    return KeptRun(choices=choices, digest=digest, **run.model_dump(exclude={"server"}))


def _timed(run: KeptRun, space: Space) -> TimedRun | None:
    setting = space.setting(run.choices)
    candidate = None if setting is None else space.at(setting)
    if setting is None or not isinstance(candidate, Candidate) or candidate.digest != run.digest:
        return None
    return TimedRun(setting, run.at_seconds, _logarithms(run.figures) if run.figures else None)


def _logarithms(figures: TuneFigures) -> Gain:
    lengths = figures.lengths
    return logarithms(
        [one.answer_tokens_per_second for one in lengths],
        [one.prompt_tokens_per_second for one in lengths],
        figures.load.first_token_seconds,
    )


class Row(Frozen):
    """A setting in the table; ``runs``: of it; ``front``: no other is better in all objectives.

    + choices: dimension -> choice, empty for the current setting
    """

    choices: dict[str, str]
    runs: int
    answer_tokens_per_second: float
    prompt_tokens_per_second: float
    first_token_seconds: float
    front: bool

    @property
    def gain(self) -> Gain:
        """Its figures as logarithms: the difference of two rows is a gain."""
        answer, prompt = self.answer_tokens_per_second, self.prompt_tokens_per_second
        return logarithms([answer], [prompt], self.first_token_seconds)


def rows(record: Record, space: Space, goal: Objective) -> tuple[Row, ...]:
    """All settings that were measured, the best for the goal first, and the current one.

    Figures are those of the current setting on average, times the gains: all are as if measured
    at the same moment.
    """
    own, known = record.current(space), record.known(space)
    if own is None:
        return ()
    everything = {setting: [*gains] for setting, gains in known.looks.items()}
    for setting, gains in known.pairs.items():
        everything.setdefault(setting, []).extend(gains)
    means: dict[Setting, Gain] = {s: mean(gains) for s, gains in everything.items()}
    here: Setting = (0,) * len(space.sizes)
    means[here] = dict.fromkeys(OBJECTIVES, 0.0)
    count = {setting: len(gains) for setting, gains in everything.items()}
    count[here] = sum(not run.choices for block in record.blocks for run in block.runs)
    ordered = sorted(means, key=lambda one: (-means[one][goal], one))
    return tuple(
        Row(
            choices=space.choices(one),
            runs=count[one],
            answer_tokens_per_second=math.exp(own["answer"] + means[one]["answer"]),
            prompt_tokens_per_second=math.exp(own["prompt"] + means[one]["prompt"]),
            first_token_seconds=math.exp(-own["first_token"] - means[one]["first_token"]),
            front=not any(_better(means[other], means[one]) for other in means),
        )
        for one in ordered
    )


def _better(one: Mapping[Objective, float], other: Mapping[Objective, float]) -> bool:
    """Whether ``one`` is at least as good in all objectives, and better in one."""
    differences = [one[key] - other[key] for key in OBJECTIVES]
    return min(differences) >= 0 and max(differences) > 0
