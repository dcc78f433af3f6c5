"""Run programs on the controller; the error of a failed one has the last lines of its output."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from corral.errors import CorralError

_TAIL_LINES = 6


def run(
    argv: Sequence[str | Path],
    *,
    where: str,
    next_step: str = "read the message above, then `corral lab down` and `corral lab up`",
    stdin: str = "",
    timeout_seconds: float = 60,
) -> str:
    """Standard output of the command; raises CorralError if it fails or takes too long."""
    command = [str(part) for part in argv]
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True,
            timeout=timeout_seconds, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as expired:
        what = f"`{shlex.join(command)}` gave no result within {timeout_seconds:.0f} s"
        raise CorralError(where, what, next_step) from expired
    if done.returncode != 0:
        tail = "\n    ".join((done.stderr or done.stdout).strip().splitlines()[-_TAIL_LINES:])
        what = f"`{shlex.join(command)}` exited {done.returncode}\n    {tail}"
        raise CorralError(where, what, next_step)
    return done.stdout
