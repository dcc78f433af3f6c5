"""Measure a grid of settings, tune's search and pairs on this machine, run by run.

    python3 -m lab.measure_tune FOLDER --programs BUILD/bin --rows rows.jsonl --for-seconds 540

Runs without network and without Corral's packages, with ``PYTHONPATH=.:files``. FOLDER is written
by ``python -m lab.measure_tune.settings``. Each run is appended to the rows as soon as it has
ended; the same command goes on where the rows end, also on another machine.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from corral.bench.tune.gains import OBJECTIVES, Setting, current
from lab.measure_tune.machine import BOOT, Machine, model_file
from lab.measure_tune.phases import Block, next_block, sizes_of
from lab.measure_tune.report import report
from lab.measure_tune.rows import Row, Rows, blocks, gain_of

_MODEL = Path("/tmp/held/GLM-4.5-Air.gguf")  # noqa: S108 - a machine of one user
# Of a run before the first one is known.
_FIRST_SECONDS = 60.0
# Runs by which the time of the next one is judged.
_LAST = 20

Clock = Callable[[], float]


def main() -> None:
    """Measure until the time is over or all is there, then say what the rows show."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--programs", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--for-seconds", type=float, default=540)
    parser.add_argument("--model", type=Path, default=_MODEL)
    given = parser.parse_args()
    document = json.loads((given.folder / "settings.json").read_text())
    settings = {tuple(one["setting"]): one for one in document["settings"]}
    machine = Machine(given.programs, model_file(given.folder, document, given.model), document)
    rows = Rows(given.rows)
    recipe = tuple(document["recipe"])
    deadline = time.monotonic() + given.for_seconds
    measure(rows, settings, recipe, machine.run, lambda: deadline - time.monotonic())
    print("\n".join(report(rows.all)), flush=True)


def measure(
    rows: Rows,
    settings: Mapping[Setting, Mapping[str, Any]],
    recipe: Setting,
    run: Callable[[Mapping[str, Any]], dict[str, Any]],
    seconds_left: Clock,
) -> None:
    """Make one run after the other while there is time for another one."""
    boot, sizes = BOOT.read_text().strip(), sizes_of(settings)
    if all(row.boot != boot for row in rows.all):
        # The first one reads the file into memory, which is no part of any setting.
        print("first, which does not count:", line(run(settings[current(len(sizes))])), flush=True)
    while block := next_block(rows.all, settings, sizes, recipe):
        number, first = place_of(rows.all, block, boot)
        for place in range(first, len(block.order)):
            if seconds_left() < _longest(rows.all):
                print("the time is over; the same command goes on", flush=True)
                return
            setting = block.order[place]
            found = run(settings[setting])
            choices = settings[setting]["choices"]
            print(
                f"{block.why} {place + 1}/{len(block.order)}",
                choices or "now",
                line(found),
                flush=True,
            )
            if found["figures"] is None and not any(setting):
                raise SystemExit("the current setting does not serve")
            row = Row(
                block=number, phase=block.phase, paired=block.paired, why=block.why, place=place,
                of=len(block.order), setting=setting, choices=choices, boot=boot, **found,
            )  # fmt: skip
            rows.add(row)


def _longest(rows: Sequence[Row]) -> float:
    """The time that the next run may take."""
    return max((row.seconds for row in rows[-_LAST:]), default=_FIRST_SECONDS)


def place_of(rows: Sequence[Row], block: Block, boot: str) -> tuple[int, int]:
    """The number of a block, and its first run that is not there: on another machine all."""
    last = [*blocks(rows)][-1] if rows else []
    if not last or len(last) == last[0].of:
        return (last[0].block + 1 if last else 0), 0
    made = tuple(row.setting for row in last)
    same = last[0].boot == boot and made == block.order[: len(made)]
    return last[0].block, len(made) if same else 0


def line(found: Mapping[str, Any]) -> str:
    """A run in short."""
    took = f"{found['seconds']:.1f} s"
    if found["figures"] is None:
        return f"{took}: {found['error']}"
    gain = gain_of(found["figures"])
    answer, prompt, first = (math.exp(gain[key]) for key in OBJECTIVES)
    return f"{took}: answers {answer:.2f}, prompts {prompt:.0f} tokens/s, load {1 / first:.2f} s"


if __name__ == "__main__":
    main()
