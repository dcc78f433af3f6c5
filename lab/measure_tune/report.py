"""What the rows show: python3 -m lab.measure_tune.report rows.jsonl"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from corral.bench.tune.gains import OBJECTIVES, Gain, Setting, current, margin, mean, ratio
from corral.bench.tune.search import Decided
from lab.measure_tune.phases import searched, sizes_of
from lab.measure_tune.replay import GRID_RUNS, replay, surface_of
from lab.measure_tune.rows import Row, all_gains, known, read

NEAR = 0.03
_REPLAYS = 40


def report(rows: Sequence[Row]) -> list[str]:
    """The search, pairs, single choices, and replays; as far as the rows go."""
    if not rows:
        return ["no run yet"]
    return [*_runs(rows), *_search(rows), *_recipe(rows), *_choices(rows), *_best(rows)]


def _runs(rows: Sequence[Row]) -> Iterator[str]:
    own = [row.timed.values for row in rows if not any(row.setting) and row.figures]
    speeds = sorted(1 + ratio(values["answer"]) for values in own if values)
    failed = {str(row.choices) for row in rows if row.figures is None}
    seconds = sum(row.seconds for row in rows)
    yield f"{len(rows)} runs of {len({row.setting for row in rows})} settings in {seconds:.0f} s"
    yield (
        f"the current setting, {len(speeds)} runs: {statistics.median(speeds):.2f} answer tokens/s "
        f"({speeds[0]:.2f}-{speeds[-1]:.2f})"
    )
    for choices in sorted(failed):
        yield f"failed: {choices}"


def _search(rows: Sequence[Row]) -> Iterator[str]:
    own = [row for row in rows if row.phase == "search"]
    settings = {row.setting for row in rows}
    step = searched(rows, settings, sizes_of(settings))
    seconds = sum(row.seconds for row in own)
    if not isinstance(step, Decided):
        yield f"the search has {len(own)} runs and {seconds:.0f} s, and goes on with: {step.why}"
        return
    yield (
        f"the search: {step.verdict}, {_named(rows, step.best)}, {_percent(step.gain)} ± "
        f"{100 * step.margin:.1f}% against auto, in pairs; {len(own)} runs, {seconds:.0f} s"
    )


def _recipe(rows: Sequence[Row]) -> Iterator[str]:
    for setting, gains in known(rows, lambda row: row.phase == "recipe").pairs.items():
        width = margin([gain["answer"] for gain in gains])
        yield (
            f"{_named(rows, setting)} against auto, in {len(gains)} pairs: answers "
            f"{_percent(mean(gains)['answer'])} ± {100 * width:.1f}%"
        )


def _choices(rows: Sequence[Row]) -> Iterator[str]:
    """Each choice against the current one of its dimension, with all else alike."""
    gains = {setting: mean(found) for setting, found in all_gains(rows).items()}
    if not gains:
        return
    gains[current(len(next(iter(gains))))] = dict.fromkeys(OBJECTIVES, 0.0)
    found: dict[str, list[Gain]] = defaultdict(list)
    labels = {row.setting: row.choices for row in rows}
    for setting, gain in gains.items():
        chosen = [d for d, n in enumerate(setting) if n]
        for d, label in zip(chosen, labels[setting].items(), strict=True):
            without = (*setting[:d], 0, *setting[d + 1 :])
            if without in gains:
                base = gains[without]
                found[" ".join(label)].append({key: gain[key] - base[key] for key in OBJECTIVES})
    yield "each choice against the one of auto, with all else alike:"
    for name, own in sorted(found.items()):
        width = f" ± {100 * margin([one['answer'] for one in own]):.1f}%" if len(own) > 1 else ""
        middle = mean(own)
        yield (
            f"  {name}: answers {_percent(middle['answer'])}{width}, prompts "
            f"{_percent(middle['prompt'])}, {len(own)} times"
        )


def _best(rows: Sequence[Row]) -> Iterator[str]:
    """The search against the grid: where it ended, and where it would end again and again."""
    found = known(rows, lambda row: row.phase == "final").looks
    for setting, gains in sorted(found.items(), key=lambda one: -mean(one[1])["answer"]):
        middle = mean(gains)
        yield (
            f"once more, {len(gains)} runs: {_named(rows, setting)}: answers "
            f"{_percent(middle['answer'])}, prompts {_percent(middle['prompt'])}"
        )
    surface = surface_of(rows)
    if not surface.gains or not surface.deviations:
        return
    ends = [replay(surface, seed) for seed in range(_REPLAYS)]
    behind = sorted(one.behind for one in ends)
    yield (
        f"of {_REPLAYS} searches on these {1 + len(surface.gains)} settings "
        f"{sum(one <= NEAR for one in behind)} end within 3% of the best, the worst "
        f"{100 * ratio(behind[-1]):.1f}% behind; they take "
        f"{100 * statistics.fmean(one.seconds for one in ends) / surface.grid_seconds:.0f}% of the "
        f"time of a grid with {GRID_RUNS} runs of each ({surface.grid_seconds:.0f} s)"
    )


def _named(rows: Sequence[Row], setting: Setting) -> str:
    found = next((row.choices for row in rows if row.setting == setting), {})
    return ", ".join(f"{name} {choice}" for name, choice in found.items()) or "as it is"


def _percent(gain: float) -> str:
    return f"{100 * ratio(gain):+.1f}%"


if __name__ == "__main__":
    print("\n".join(report(read(Path(sys.argv[1])))))
