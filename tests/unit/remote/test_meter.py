"""Bars of jobs, from the lines that programs really print."""

from __future__ import annotations

import io

import pytest

from corral.cli.views.progress import progress_shown
from corral.remote.meter import Meter, Meters, format_meter, read_meter
from corral.remote.progress import Progress, ProgressLines, ProgressRows
from corral.terminal import console

ARIA2 = "[#2089b0 12.0GiB/48.0GiB(25%) CN:4 DL:400MiB ETA:1m32s]"


@pytest.mark.parametrize(
    ("line", "what", "fraction"),
    [
        (ARIA2, "fetching", 0.25),
        ("[#a1 0B/0B(0%) CN:1 DL:0B]", "fetching", 0),
        ("proving 45% of GLM-00001-of-00002.gguf", "proving GLM-00001-of-00002.gguf",
         0.45),
        ("hashing 7% of a b", "hashing a b", 0.07),
        ("[120/480] Building CXX object ggml.o", "building", 0.25),
        ("[ 45%] Building CXX object ggml.o", "building", 0.45),
        ("[100%] Built target llama-server", "building", 1),
        ("[7/3] odd", "building", 1),
    ],
)  # fmt: skip
def test_a_line_says_how_far_it_is(line: str, what: str, fraction: float) -> None:
    found = read_meter(["before", line, "after"])
    assert found is not None
    assert (found.what, found.fraction) == (what, fraction)


@pytest.mark.parametrize(
    "line", ["", "shard 1 of 2: x", "[x/y] z", "45% of", "[#a1 1XiB/2GiB(3%)]", "a [1/2] b"]
)
def test_other_lines_say_nothing(line: str) -> None:
    assert read_meter([line]) is None


def test_a_bar_has_bytes_rate_and_time_left() -> None:
    now = [0.0]
    meters = Meters(lambda: now[0])
    assert meters.read("gpu-01", [ARIA2.replace("12.0GiB", "0.0GiB")]) is not None
    now[0] = 30
    found = meters.read("gpu-01", [ARIA2])
    assert found is not None
    assert format_meter(found) == (
        "[#####...............] 25%, 12.0 GiB of 48.0 GiB, 400.0 MiB/s, 90 s left: fetching"
    )


def test_the_next_file_begins_anew_and_hosts_are_apart() -> None:
    now = [0.0]
    meters = Meters(lambda: now[0])
    meters.read("a", ["proving 0% of one"])
    now[0] = 10
    other, same = meters.read("b", ["proving 50% of one"]), meters.read("a", ["proving 50% of one"])
    later, again = meters.read("a", ["proving 60% of two"]), meters.read("a", ["proving 5% of two"])
    left = [one.left_seconds if one else 0 for one in (other, same, later, again)]
    assert left == [None, 10, None, None]


@pytest.mark.parametrize("seconds", [0, 119, 121, 7201, 1e9])
def test_any_time_left_is_one_line(seconds: float) -> None:
    text = format_meter(Meter(what="x", fraction=1, left_seconds=seconds))
    assert text.startswith(f"[{'#' * 20}] 100%, ")
    assert len(text.splitlines()) == 1


def test_lines_of_a_deploy_have_bars() -> None:
    lines: list[str] = []
    printing = ProgressLines(lines.append)
    printing("fetch", Progress(line=ARIA2, tail=("shard 1 of 1: x", ARIA2)))
    printing("build-x", Progress(line="[120/480] Building", tail=("[120/480] Building",)))
    printing("fetch", Progress(silent_seconds=9, detail="cut", tail=(ARIA2,)))
    assert lines[0].startswith("fetch: [#####...............] 25%, 12.0 GiB of 48.0 GiB")
    assert lines[1].startswith("build-x: [#####...............] 25%: building")
    assert all("no answer" in line or "[#" in line for line in lines)


def test_a_terminal_redraws_one_line_a_host() -> None:
    out = io.StringIO()
    terminal = console(file=out, width=120, force_terminal=True)
    with progress_shown(terminal) as on_progress:
        assert isinstance(on_progress, ProgressRows)
        on_progress("gpu-01", Progress(line=ARIA2, tail=(ARIA2,)))
        on_progress("gpu-02", Progress(line="proving 5% of x", tail=("proving 5% of x",)))
        on_progress("gpu-02", Progress(silent_seconds=9, detail="cut", tail=(ARIA2,)))
        on_progress("gpu-01", Progress(line="\x1b]0;owned\x07"))
        text = [str(line) for line in on_progress.draw().renderables]
    assert text[0] == "gpu-01: \\x1b]0;owned\\x07"
    assert text[1].startswith("gpu-02: no answer for 9 s")
    assert "owned" in out.getvalue()


def test_without_a_terminal_there_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_shown(console(file=io.StringIO())) as on_progress:
        on_progress("gpu-01", Progress(line=ARIA2, tail=(ARIA2,)))
    assert capsys.readouterr().out.startswith("gpu-01: [#####")
