"""aria2 of a swarm as a plain process, where no systemd is: the caller is its user."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from tests.unit.helper_modules import helper_module

_Unit: Any = helper_module("swarm.unit").Unit


class PlainUnit(_Unit):  # type: ignore[misc]
    """A unit's methods without a unit."""

    def start(self, arguments: tuple[str, ...], secret: str) -> None:
        self.lent.open()
        with os.fdopen(os.memfd_create("aria2"), "w") as memory:
            memory.write(secret)
            memory.flush()
            place = f"--conf-path=/proc/self/fd/{memory.fileno()}"
            self._process = subprocess.Popen(
                ["aria2c", place, *arguments], stdin=subprocess.DEVNULL, pass_fds=(memory.fileno(),)
            )

    def started(self) -> None:
        self.lent.give_to(os.geteuid())

    def inside(self, path: Path) -> str:
        return str(path)

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait()
        self.lent.restore_all()
