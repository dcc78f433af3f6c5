"""Locks that the death of their holder frees."""

import contextlib
import fcntl
import os
import time
from pathlib import Path

from corral_host.tools import HostError, say


@contextlib.contextmanager
def one_build(release):
    """One build at a time for all that share a compiler cache; says whom it waits for."""
    cache = Path(release["compiler_cache"])
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "corral-build.lock", "a+") as lock:
        wait_for(lock)
        lock.truncate(0)
        lock.write(f"{release['engine']} {release['key']} on {os.uname().nodename}, ")
        lock.write(f"process {os.getpid()}, since {time.strftime('%H:%M:%S', time.gmtime())} UTC")
        lock.flush()
        yield
        lock.truncate(0)


def wait_for(lock):
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        say(f"waiting for another build: {lock.read() or 'just starting'}")
        fcntl.flock(lock, fcntl.LOCK_EX)


@contextlib.contextmanager
def changing_releases(release):
    """While a release is built, installed or packed, nothing is pruned."""
    with open(lock_file(release["state"]), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def pruning(state):
    """Raises HostError while a job changes releases."""
    with open(lock_file(state), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HostError(
                "nothing was pruned: a release is being built or installed here. "
                "Next: run this again when that is done"
            ) from error
        yield


def lock_file(state):
    Path(state).mkdir(parents=True, exist_ok=True)
    return Path(state) / "releases.lock"
