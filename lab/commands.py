"""Run the controller's own tools; a failure is told with the tool's last words."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from corral.errors import CorralError

_TOLD_LINES = 6


def run(
    argv: Sequence[str | Path],
    *,
    where: str,
    next_step: str = "read the message above, then `corral lab down` and `corral lab up`",
    stdin: str = "",
    timeout_seconds: float = 60,
) -> str:
    """Standard output of the command; raises CorralError when it fails or takes too long."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words, input=stdin, capture_output=True, text=True, timeout=timeout_seconds, check=False
        )
    except subprocess.TimeoutExpired as expired:
        what = f"`{shlex.join(words)}` gave no result within {timeout_seconds:.0f} s"
        raise CorralError(where, what, next_step) from expired
    if done.returncode != 0:
        told = "\n    ".join((done.stderr or done.stdout).strip().splitlines()[-_TOLD_LINES:])
        what = f"`{shlex.join(words)}` exited {done.returncode}\n    {told}"
        raise CorralError(where, what, next_step)
    return done.stdout
