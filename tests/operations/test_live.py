"""Lines of a deploy on a terminal: a line a host, below a log that stays whole."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from corral.remote.meter import Meter
from corral.remote.progress import Progress
from corral.terminal import console
from operations import live

FETCHING = "[#2089b0 400.0KiB/1.0MiB(39%) CN:4 DL:115.7KiB ETA:5s]"


def lines(width: int = 100) -> tuple[live.LiveLines, io.StringIO]:
    file = io.StringIO()
    return live.LiveLines(console(file=file, force_terminal=True, width=width)), file


def test_a_terminal_has_a_line_a_host_with_bytes_and_rate_while_jobs_run() -> None:
    shown, file = lines()
    log: list[str] = []
    with shown.shown("lab-1", log.append) as one, shown.shown("lab-2", log.append) as two:
        one("fetch", Progress(phase="fetching", detail="a.gguf"))
        one("fetch", Progress(phase="fetching", line=FETCHING, tail=(FETCHING,)))
        two("build", Progress(line="[12/345] Building", tail=("[12/345] Building",)))
        drawn = file.getvalue()
        assert "lab-1 fetch: [########............] 39%, 400.0 KiB of 1.0 MiB, 115.7 KiB/s" in drawn
        assert "lab-2 build: [#" in drawn
        before = len(drawn)
        two("build", Progress(line="[13/345] Building", tail=("[13/345] Building",)))
        assert "lab-1 fetch" in file.getvalue()[before:], "each drawing has all hosts"
    # Phases stay in the log; bars are not repeated there.
    assert log == ["fetch: fetching: a.gguf", "build: [12/345] Building"] or log == [
        "fetch: fetching: a.gguf", "build: [#...................] 3%: building",
    ]  # fmt: skip


def test_a_job_that_ends_leaves_no_line_beside_those_that_go_on() -> None:
    shown, file = lines()
    with shown.shown("lab-1", print) as one:
        one("fetch", Progress(line="one"))
        with shown.shown("lab-2", print) as two:
            two("fetch", Progress(line="two"))
        before = len(file.getvalue())
        one("fetch", Progress(line="three"))
        assert "lab-1 fetch: three" in file.getvalue()[before:]
        assert "lab-2" not in file.getvalue()[before:]


def test_a_file_that_is_sent_has_a_line(tmp_path: Path) -> None:
    del tmp_path
    shown, file = lines()
    with shown.metered("lab-1", lambda _: pytest.fail("not in the log")) as on_meter:
        on_meter(Meter(what="sending x", fraction=0.5, done_bytes=512, total_bytes=1024))
    assert "lab-1 file: [##########..........] 50%, 512 B of 1.0 KiB: sending x" in file.getvalue()


def test_without_a_terminal_progress_is_lines_of_the_log() -> None:
    shown = live.LiveLines(console(file=io.StringIO()))
    log: list[str] = []
    with shown.shown("lab-1", log.append) as one:
        one("fetch", Progress(line="one"))
        one("fetch", Progress(line="two"))
    assert log == ["fetch: one"]
    meters: list[Meter] = []
    with shown.metered("lab-1", meters.append) as on_meter:
        on_meter(Meter(what="sending x", fraction=0.5))
    assert len(meters) == 1
