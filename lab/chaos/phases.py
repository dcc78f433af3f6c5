"""Do something in a certain phase of an activation: told by the host, done at once."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from lab import ssh
from lab.chaos.fleet import NAME, Fleet

_LIMIT_SECONDS = 180
OVER = "the activation ended before it"
# Quicker than any phase; a question to the helper would take longer than the shortest of them.
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
    """The phase in which something was to happen did not come: the scenario played nothing."""


@contextmanager
def at(fleet: Fleet, n: int, phase: str, action: Callable[[], None]) -> Iterator[None]:
    """Do something once, when server n's activation gets to a phase. Raises NeverReachedError."""
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
        # Without a word: it was ended below, as there is nothing to wait for any more.
        return said.strip() or OVER

    with meanwhile(wait, watching.terminate, f"{fleet.layout.host_name(n)}: {phase}"):
        yield


@contextmanager
def meanwhile(wait: Callable[[], str], stop: Callable[[], object], where: str) -> Iterator[None]:
    """Wait for something beside the block, and at its end no longer.

    + wait: gives why it never came, or nothing; + stop: makes it end. Raises NeverReachedError, and
    what went wrong in ``wait`` itself.
    """
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(wait)
        try:
            yield
        finally:
            stop()
    if problem := waiting.result():
        raise NeverReachedError(f"{where}: {problem}")
