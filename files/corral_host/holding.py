"""Who changes this host: locks that say so and that die with their holder."""

import contextlib
import fcntl
import json
import os
import select
import sys
import time
from pathlib import Path

from corral_host.tools import HostError

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# A controller that says nothing for so long is gone.
SILENCE_SECONDS = 60


def boot_id():
    return BOOT_ID.read_text().strip()


def activate_lock(state):
    return Path(state) / "activate.lock"


def rollout_lock(state):
    return Path(state) / "rollout.lock"


@contextlib.contextmanager
def held(path, by, doing, *, wait=False, **more):
    """Hold a lock and say in it who does what. Raises HostError that names another holder."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as fault:
            raise HostError(f"{told(path)}. Next: wait for it, then ask again") from fault
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        holder = {"by": by, "since": since, "boot_id": boot_id(), "pid": os.getpid()}
        # For people only: with a full disk the lock holds as well.
        with contextlib.suppress(OSError):
            lock.truncate(0)
            lock.write(json.dumps({**holder, "doing": doing, **more}))
            lock.flush()
        yield


def holder_of(path):
    """What the living holder of a lock says of itself, or None."""
    try:
        with open(path) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return says(lock.read())
    except FileNotFoundError:
        pass
    return None


def says(text):
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        # Another one was just about to write it.
        return {}


def told(path):
    holder = holder_of(path) or {}
    return (
        f"{holder.get('by', 'somebody')} is {holder.get('doing', 'at work')} on this host since "
        f"{holder.get('since', 'just now')} (pid {holder.get('pid', 'unknown')})"
    )


def refuse_other_rollout(state, rollout):
    """Raises HostError while somebody else's rollout holds this host."""
    path = rollout_lock(state)
    holder = holder_of(path)
    if holder is not None and holder.get("rollout") != rollout:
        raise HostError(f"{told(path)}. Next: wait until that rollout ends, or end it")


def hold(document):
    """Hold this host for a rollout for as long as its controller sends lines. Gives nothing."""
    path = rollout_lock(document["paths"]["state"])
    rollout = document["rollout"]
    with held(path, document["by"], f"rolling out {rollout}", rollout=rollout):
        print(json.dumps({"held": True}), flush=True)
        while select.select([sys.stdin], [], [], SILENCE_SECONDS)[0]:
            if not os.read(sys.stdin.fileno(), 4096):
                break
