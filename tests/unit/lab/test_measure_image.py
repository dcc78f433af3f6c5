"""What lab/measure_image.py starts, and what it writes of it."""

from __future__ import annotations

import os
import subprocess

from lab import measure_image
from lab.image_settings import IMAGE, settings_of
from tests.unit.fit_samples import DENSE, header

PLACES = {"{models}": "/m", "{keys}": "/k", "{gpu}": "1"}


def test_a_container_gets_what_a_unit_would_give_it() -> None:
    settings = settings_of(header(DENSE), 100, 1024)
    command = measure_image.container(settings, PLACES, 0)
    assert command[: command.index("apptainer")] == list(measure_image._AS_NOBODY)
    assert command[-1] == f"{IMAGE}/image.squashfs"
    for word in ("--nv", "/m:/models:ro", "/k:/k:ro", "CUDA_VISIBLE_DEVICES=1"):
        assert word in command
    server = measure_image.filled(settings["image"], PLACES)
    assert server[:3] == [f"{IMAGE}/bin/llama-server", "--model", "/models/model.gguf"]


def test_as_root_it_asks_for_no_capability() -> None:
    command = measure_image.container(settings_of(header(DENSE), 100, 1024), PLACES, 2)
    assert command[:4] == ["apptainer", "--quiet", "exec", "--no-privs"]


def test_the_tree_of_a_process_has_its_descendants() -> None:
    """The shell does not become its last command, as one follows it."""
    with subprocess.Popen(["sh", "-c", "sleep 60; true"]) as shell:
        while "sleep" not in (names := [name for _, name in measure_image.tree(shell.pid)]):
            assert shell.poll() is None
        for pid, _ in [*measure_image.tree(shell.pid)]:
            os.kill(pid, 9)
    assert sorted(names) == ["sh", "sleep"]


def test_the_table_has_medians_of_all_starts_and_says_what_failed() -> None:
    row = {"started": "native", "held_mib": 19076, "ready_seconds": 4.25, "stop_seconds": 0.5}
    rows = [{**row, "turn": 0, "speeds": [[100, 10], [102, 12]]}]
    rows += [{**row, "turn": 1, "speeds": [[104, 14]]}]
    rows += [{"started": "user", "turn": 1, "error": "RuntimeError: no"}]
    assert measure_image.table({"rows": rows})[2:] == [
        "| native | 19076 | 102.0 (100.0-104.0) | 12.0 (10.0-14.0) | 4.2 | 0.5 |",
        "user, turn 1: RuntimeError: no",
    ]
