"""Run an action in a certain phase of an activation, as soon as the host reports the phase."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from lab import ssh
from lab.chaos.fleet import NAME, Fleet

_LIMIT_SECONDS = 180
OVER = "the activation ended before it"
# Faster than any phase; asking the helper would take longer than the shortest phase.
_WATCH = """
import json, sys, time
wanted, limit = sys.argv[1], time.monotonic() + float(sys.argv[2])
while time.monotonic() < limit:
    try:
        with open("/run/corral/activate-{name}.phase") as file:
            if json.load(file)["name"] == wanted:
                sys.exit(0)
    except (OSError, ValueError):
        pass
    time.sleep(0.001)
sys.exit("the phase was never seen")
"""


class NeverReachedError(Exception):
    """The phase of the action was never reached, so the scenario tested nothing."""


@contextmanager
def at(fleet: Fleet, n: int, phase: str, action: Callable[[], None]) -> Iterator[None]:
    """Run an action once, when server n's activation reaches a phase. Raises NeverReachedError."""
    watch = _WATCH.format(name=NAME)
    script = f"python3 - '{phase}' {_LIMIT_SECONDS} <<'END'\n{watch}\nEND"
    watching = subprocess.Popen(
        ssh.command(fleet.layout, n, script), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip

    def wait() -> str:
        _, said = watching.communicate()
        if watching.returncode == 0:
            action()
            return ""
        # Without output it was terminated below, as the block has ended.
        return said.strip() or OVER

    with meanwhile(wait, watching.terminate, f"{fleet.layout.host_name(n)}: {phase}"):
        yield


@contextmanager
def meanwhile(wait: Callable[[], str], stop: Callable[[], object], where: str) -> Iterator[None]:
    """Wait for an event in parallel to the block, until the block ends.

    + wait: returns why the event never came, or ""; + stop: makes ``wait`` return. Raises
    NeverReachedError, and errors of ``wait``.
    """
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait)
        try:
            yield
        finally:
            stop()
    if problem := waiting.result():
        raise NeverReachedError(f"{where}: {problem}")
