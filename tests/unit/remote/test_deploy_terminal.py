"""What a deploy draws on a real terminal, and that its log stays whole."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

from tests.samples import ROOT

FETCHING = "[#2089b0 400.0KiB/1.0MiB(39%) CN:4 DL:115.7KiB ETA:5s]"
# As pyinfra prints: its logger, by click, on standard error.
DEPLOY = f"""
import click
from corral.remote.progress import Progress
from operations.live import LIVE, take_terminal
take_terminal()
say = lambda line: click.echo(f"    [lab-1] {{line}}", err=True)
with LIVE.shown("lab-1", say) as one, LIVE.shown("lab-2", say) as two:
    one("fetch", Progress(phase="fetching", detail="a.gguf"))
    click.echo("a line of the log", err=True)
    for _ in range(3):
        one("fetch", Progress(phase="fetching", line={FETCHING!r}, tail=({FETCHING!r},)))
        two("build", Progress(line="[12/345] Building", tail=("[12/345] Building",)))
click.echo("the end", err=True)
"""


def on_a_terminal(script: str) -> str:
    """What a program writes to a terminal."""
    primary, secondary = pty.openpty()
    environment = {
        **os.environ,
        "TERM": "xterm",
        "COLUMNS": "100",
        "PYTHONPATH": f"{ROOT}:{ROOT}/files",
    }
    program = subprocess.Popen(
        [sys.executable, "-c", script], stdin=secondary, stdout=secondary, stderr=secondary,
        env=environment, cwd=ROOT,
    )  # fmt: skip
    os.close(secondary)
    found = b""
    while True:
        try:
            block = os.read(primary, 65536)
        except OSError:
            # Its end on Linux.
            break
        found += block
    os.close(primary)
    assert program.wait() == 0, found.decode()
    return found.decode()


def test_the_log_of_a_real_terminal_is_whole_and_nothing_is_left_below_it() -> None:
    text = on_a_terminal(DEPLOY)
    assert "lab-1 fetch: [########" in text
    assert "lab-2 build: [#" in text
    # What is there after the last erasing of each line, without other commands of the terminal.
    kept = [line.rpartition("\x1b[2K")[2] for line in text.split("\r\n")]
    stripped = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).replace("\r", "") for line in kept]
    for line in ("    [lab-1] fetch: fetching: a.gguf", "a line of the log", "the end"):
        assert line in stripped, text
    # What was drawn is erased before the last line, and the cursor is there again.
    assert "\x1b[2K" in text
    assert text.rindex("\x1b[?25h") > text.rindex("lab-2 build")
