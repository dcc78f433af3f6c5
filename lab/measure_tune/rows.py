"""Runs on the measured machine, one line of JSON each, and their gains. Standard library alone."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from corral.bench.tune.gains import (
    Gain,
    Setting,
    TimedRun,
    logarithms,
    paired_gains,
    spread_gains,
)
from corral.bench.tune.search import Known

Phase = Literal["search", "recipe", "grid", "final"]


@dataclass(frozen=True)
class Row:
    """One run.

    + block: its number; runs of one were made together, in the order of ``place``, ``of`` in all
    + choices: dimension -> choice, where it is not the current one
    + boot: of the machine; + began: seconds since the epoch
    + figures: None where the server did not serve; ``error``: why; + before, after: the machine
    """

    block: int
    phase: Phase
    paired: bool
    why: str
    place: int
    of: int
    setting: Setting
    choices: dict[str, str]
    boot: str
    began: float
    seconds: float
    figures: dict[str, Any] | None
    error: str = ""
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)

    @property
    def timed(self) -> TimedRun:
        """The run as gains are counted from it."""
        return TimedRun(self.setting, self.began, gain_of(self.figures) if self.figures else None)


def gain_of(figures: dict[str, Any]) -> Gain:
    """The objectives of a run, as logarithms."""
    lengths = figures["lengths"]
    return logarithms(
        [one["answer_tokens_per_second"] for one in lengths],
        [one["prompt_tokens"] / one["first_token_seconds"] for one in lengths],
        figures["load"]["first_token_seconds"],
    )


class Rows:
    """The rows of a file, to which more are added."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.all = read(path)

    def add(self, row: Row) -> None:
        """Keep a row for good."""
        with self._path.open("a") as file:
            file.write(json.dumps(asdict(row)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.all.append(row)


def read(path: Path) -> list[Row]:
    """The rows of a file, none where there is none; a line that was cut at its end is left out."""
    text = path.read_text() if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        # What is added next begins a line of its own.
        os.truncate(path, len(whole.encode()))
    found = [json.loads(line) for line in whole.splitlines()]
    return [Row(**{**one, "setting": tuple(one["setting"])}) for one in found]


def blocks(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """The rows of each block; of one that was begun anew on another machine, the last."""
    for _, group in groupby(rows, key=lambda row: row.block):
        own = list(group)
        yield [row for row in own if row.boot == own[-1].boot]


def known(rows: Sequence[Row], of: Callable[[Row], bool] = lambda _: True) -> Known:
    """What a search knows of the whole blocks whose rows are ``of`` it."""
    looks: dict[Setting, list[Gain]] = defaultdict(list)
    pairs: dict[Setting, list[Gain]] = defaultdict(list)
    failed: set[Setting] = set()
    for block in blocks(rows):
        if len(block) < block[0].of or not of(block[0]):
            continue
        runs = [row.timed for row in block]
        failed |= {run.setting for run in runs if run.values is None and any(run.setting)}
        into, gains = (pairs, paired_gains) if block[0].paired else (looks, spread_gains)
        for setting, gain in gains(runs):
            into[setting].append(gain)
    return Known(looks, pairs, frozenset(failed))


def all_gains(rows: Sequence[Row]) -> dict[Setting, list[Gain]]:
    """Every gain that was measured, paired or not."""
    found = known(rows)
    both = {setting: [*gains] for setting, gains in found.looks.items()}
    for setting, gains in found.pairs.items():
        both.setdefault(setting, []).extend(gains)
    return both
