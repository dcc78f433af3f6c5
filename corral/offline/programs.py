"""Programs of this machine that a bundle is made with."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from platform import freedesktop_os_release

from corral_shared.text import printable_line

from corral.errors import CorralError

_REASON_LINES = 6
# 1980-01-01, the first date of zip archives: a wheel that is made twice has the same bytes.
_EPOCH = "315532800"


def this_platform() -> str:
    """The distribution of this controller, as the catalog names platforms; empty where unknown."""
    try:
        fields = freedesktop_os_release()
    except OSError:
        return ""
    return f"{fields['ID']}-{fields.get('VERSION_ID', '')}"


def run(
    command: Sequence[str], *, where: str, next_step: str, folder: Path | None = None,
    stdin: str = "",
) -> str:  # fmt: skip
    """The output of a program. Raises CorralError with its own reason."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": _EPOCH}
    try:
        done = subprocess.run(
            list(command), input=stdin, capture_output=True, text=True, errors="replace",
            env=environment, cwd=folder, check=False,
        )  # fmt: skip
    except OSError as error:
        what = f"{command[0]} cannot be run: {error.strerror}"
        raise CorralError(where, what, f"install it, then {next_step}") from error
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        reason = "; ".join(printable_line(line) for line in lines[-_REASON_LINES:])
        what = f"{Path(command[0]).name}: {reason or f'exit code {done.returncode}'}"
        raise CorralError(where, what, next_step)
    return done.stdout
