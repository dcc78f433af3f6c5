"""`lab.measure_tune`: settings that fit, rows that last, and a search that can be replayed."""

from __future__ import annotations

import contextlib
import json
import math
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from corral.bench.tune.gains import Setting
from corral.bench.tune.search import Decided
from corral.engines.tuning import Machine
from lab.measure_tune import __main__ as command
from lab.measure_tune.phases import next_block, searched, sizes_of
from lab.measure_tune.replay import replay, surface_of
from lab.measure_tune.report import NEAR, report
from lab.measure_tune.rows import Rows, read
from lab.measure_tune.settings import GRID, HEADER, air_space, described
from tests.samples import ROOT
from tests.unit.bench.tune.surfaces import product_surface
from tests.unit.fit_samples import A100_MIB, SHARED_DATA


def _choices(**numbers: int) -> dict[str, str]:
    return {name: str(n) for name, n in numbers.items() if n}


RECIPE = (2, 0, 0)
SETTINGS: dict[Setting, dict[str, Any]] = {
    (d, e, n): {"setting": (d, e, n), "choices": _choices(placement=d, batch=e, threads=n)}
    for d in range(3)
    for e in range(3)
    for n in range(2)
}
SURFACE = product_surface((3, 3, 2), 2)


class Measured:
    """A machine with known speeds; it dies after some runs."""

    def __init__(self, lives: int = 10_000) -> None:
        self.lives, self.chance = lives, random.Random(1)  # noqa: S311
        self.settings: list[Setting] = []

    def run(self, setting: Mapping[str, Any]) -> dict[str, Any]:
        if not self.lives:
            raise KeyboardInterrupt
        self.lives -= 1
        self.settings.append(setting["setting"])
        speed = 20 * math.exp(SURFACE(setting["setting"]) + self.chance.gauss(0, 0.01))
        lengths = {"prompt_tokens": 64, "first_token_seconds": 1, "answer_tokens_per_second": speed}
        figures = {"lengths": [lengths], "load": {"first_token_seconds": 1}}
        return {"began": len(self.settings), "seconds": 10.0, "figures": figures, "error": ""}


def measure(path: Path, machine: Measured, left: float = 60) -> None:
    command.measure(Rows(path), SETTINGS, RECIPE, machine.run, lambda: left)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


def test_the_grid_has_sixty_settings_that_fit_and_name_no_place_of_this_checkout() -> None:
    machine = Machine(cores=16, threads=16, gpus=1, experts=True, drafts=True)
    space = air_space(SHARED_DATA / HEADER, memory_mib=[A100_MIB], machine=machine, choices=GRID)
    document = json.loads(json.dumps(described(space)))
    settings = document["settings"]
    assert len(settings) >= 60
    assert len({json.dumps(one["argv"]) for one in settings}) == len(settings)
    for one in settings:
        assert {"{program}", "{model}"} <= set(one["argv"])
        assert one["predicted_mib"] < A100_MIB
    assert document["recipe"] in [one["setting"] for one in settings]
    assert [one["setting"] for one in settings if not one["choices"]] == [[0, 0, 0]]


def test_it_runs_without_the_packages_of_corral() -> None:
    missing = "import sys, runpy; sys.modules.update(pydantic=None, click=None, pyinfra=None)\n"
    script = missing + "sys.argv = ['-', '--help']; runpy.run_module('lab.measure_tune.__main__')"
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'files'}"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


def test_each_setting_is_measured_and_the_best_once_more(path: Path) -> None:
    measure(path, Measured())
    rows = read(path)
    assert {row.setting for row in rows} == set(SETTINGS)
    phases = list(dict.fromkeys(row.phase for row in rows))
    assert phases == ["search", "recipe", "grid", "final"]
    assert next_block(rows, SETTINGS, sizes_of(SETTINGS), RECIPE) is None
    again = Measured()
    measure(path, again)
    assert again.settings == []


def test_what_was_measured_before_a_kill_is_not_measured_again(path: Path) -> None:
    """It dies at a run, and in the middle of a line."""
    starts = 0
    while not path.exists() or next_block(read(path), SETTINGS, sizes_of(SETTINGS), RECIPE):
        starts += 1
        with contextlib.suppress(KeyboardInterrupt):
            measure(path, Measured(lives=7))
        with path.open("a") as file:
            file.write('{"block": 2, "pha')
    places = [(row.block, row.place) for row in read(path)]
    assert len(set(places)) == len(places)
    assert all(place < row.of for row, (_, place) in zip(read(path), places, strict=True))
    assert starts > 5


def test_the_time_ends_between_two_runs(path: Path) -> None:
    measure(path, Measured(), left=59)
    assert read(path) == []
    left = iter([60.0, 60.0, 9.0])
    command.measure(Rows(path), SETTINGS, RECIPE, Measured().run, lambda: next(left))
    assert [row.place for row in read(path)] == [0, 1]


def test_a_block_that_another_machine_began_is_begun_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        measure(path, Measured(lives=4))
    (boot := path.with_name("boot")).write_text("another\n")
    monkeypatch.setattr(command, "BOOT", boot)
    measure(path, Measured())
    first = [(row.boot, row.place) for row in read(path) if row.block == 0]
    assert [place for _, place in first[:4]] == [0, 1, 2, 0]
    assert {own for own, _ in first[3:]} == {"another"}


def test_a_current_setting_that_does_not_serve_ends_it(path: Path) -> None:
    def fails(_: Mapping[str, Any]) -> dict[str, Any]:
        return {"began": 0, "seconds": 1.0, "figures": None, "error": "no such device"}

    with pytest.raises(SystemExit, match="does not serve"):
        command.measure(Rows(path), SETTINGS, RECIPE, fails, lambda: 60)


def test_searches_on_the_rows_end_near_the_best_of_the_grid(path: Path) -> None:
    measure(path, Measured())
    rows = read(path)
    surface = surface_of(rows)
    assert set(surface.gains) == set(SETTINGS) - {(0, 0, 0)}
    assert surface.grid_seconds == 5 * 10 * len(SETTINGS)
    ends = [replay(surface, seed) for seed in range(20)]
    assert sum(one.behind <= NEAR for one in ends) >= 19
    # What is said of a setting is what it has against the best of all.
    assert surface.behind((0, 0, 0)) == pytest.approx(max(map(SURFACE, SETTINGS)), abs=0.03)


def test_the_report_says_how_far_the_rows_go(path: Path) -> None:
    assert report([]) == ["no run yet"]
    left = iter([60.0] * 6 + [0.0])
    command.measure(Rows(path), SETTINGS, RECIPE, Measured().run, lambda: next(left))
    assert any("the search has 6 runs" in line for line in report(read(path)))
    measure(path, Measured())
    step = searched(read(path), SETTINGS, sizes_of(SETTINGS))
    assert isinstance(step, Decided)
    said = "\n".join(report(read(path)))
    assert f"the search: {step.verdict}" in said
    assert "placement 1: answers" in said
    assert "of 40 searches on these 18 settings" in said
