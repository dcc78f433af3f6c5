"""Locks of builds and releases; they end with their holder's process."""

import contextlib
import fcntl
import os
import time
from pathlib import Path

from corral_host.system.commands import HostError, say
from corral_host.system.locks import lock_file, lock_path, read, take, write

# Another deploy of this host prunes at the same moment, which takes less.
PRUNE_WAIT_SECONDS = 10


@contextlib.contextmanager
def one_build(release):
    """One build at a time on each host, and among hosts that share a compiler cache.

    Says which build it waits for. An image compiles nothing: what is in it may.
    """
    with held_by_build(lock_path(release["state"], "build"), release), compiling(release):
        yield


def compiling(release):
    """One build at a time among hosts that share a compiler cache, if it compiles anything."""
    if release["artifact"]["kind"] != "cmake-build":
        return contextlib.nullcontext()
    return held_by_build(build_lock(release), release)


@contextlib.contextmanager
def held_by_build(path, release):
    with lock_file(path) as lock:
        wait_for(lock)
        since = time.strftime("%H:%M:%S", time.gmtime())
        write(
            lock, f"{release['engine']} {release['key']} on {os.uname().nodename}, "
            f"process {os.getpid()}, since {since} UTC",
        )  # fmt: skip
        yield
        write(lock, "")


def build_lock(release):
    """The lock beside the compiler cache, which several hosts may share."""
    return Path(release["compiler_cache"]) / "locks" / "corral-build.lock"


def wait_for(lock):
    if not take(lock, fcntl.LOCK_EX, 0):
        say(f"waiting for another build: {read(lock) or 'just starting'}")
        fcntl.flock(lock, fcntl.LOCK_EX)


@contextlib.contextmanager
def changing_releases(release):
    """Prevent pruning while a release is built, installed or packed."""
    with lock_file(lock_path(release["state"], "releases")) as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def pruning(state):
    """Hold the lock for pruning. Raises HostError while a job changes releases."""
    with lock_file(lock_path(state, "releases")) as lock:
        if not take(lock, fcntl.LOCK_EX, PRUNE_WAIT_SECONDS):
            raise HostError(
                "nothing was pruned: a release is being built or installed here",
                "run this again when that is done",
            )
        yield
