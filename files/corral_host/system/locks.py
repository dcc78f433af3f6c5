"""Locks that say who holds them and that die with their holder.

Their files are 0600, in a folder of 0700: whoever can open a file can lock it, and a lock that a
stranger holds would stop all that waits.
"""

import contextlib
import errno
import fcntl
import json
import os
import select
import stat
import sys
import time
from pathlib import Path

from corral_host.system.commands import HostError, say

PAUSE_SECONDS = 0.05
# No blocking, as what lies there might be a pipe.
FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
ROOT = 0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Somebody who only looks holds a lock for a moment.
LOOK_SECONDS = 1
# A controller that says nothing for so long is gone.
SILENCE_SECONDS = 60


def lock_path(state, name):
    return Path(state) / "locks" / f"{name}.lock"


@contextlib.contextmanager
def lock_file(path, *, make=True):
    """A lock file, open to be read and written without a buffer; closing it frees its lock.

    Raises HostError where the file or its folder is somebody else's, FileNotFoundError where
    there is none and none is to be made.
    """
    path = Path(path)
    folder = private_folder(path.parent, make)
    try:
        handle = opened(path, folder, make)
    finally:
        os.close(folder)
    with os.fdopen(handle, "r+b", buffering=0) as file:
        heal(handle, path, 0o600)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise refused(path, "it is no plain file")
        yield file


def private_folder(path, make=True):
    """A handle of a folder that is root's alone; one that stands open is closed to the others."""
    if make and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
    with telling(path):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        heal(handle, path, 0o700)
    except BaseException:
        os.close(handle)
        raise
    return handle


def opened(path, folder, make):
    with telling(path):
        try:
            # One that is there needs no disk space.
            return os.open(path.name, FLAGS, dir_fd=folder)
        except FileNotFoundError:
            if not make:
                raise
            return os.open(path.name, FLAGS | os.O_CREAT, 0o600, dir_fd=folder)


def heal(handle, path, mode):
    found = os.fstat(handle)
    if found.st_uid not in (ROOT, os.geteuid()):
        raise refused(path, f"it belongs to user {found.st_uid}")
    if stat.S_IMODE(found.st_mode) != mode:
        os.fchmod(handle, mode)


@contextlib.contextmanager
def telling(path):
    """What lies there instead of a file or a folder is told; other faults go on."""
    try:
        yield
    except OSError as fault:
        if fault.errno in (errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO):
            raise refused(path, fault.strerror) from fault
        raise


def refused(path, why):
    return HostError(
        f"{path}: not used for locks, {why}", "see who put it there, remove it, ask again"
    )


def take(file, how, seconds):
    """Whether the lock was got within so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
        time.sleep(PAUSE_SECONDS)


def write(file, text):
    """What a lock says, for people only: with a full disk the lock holds as well."""
    with contextlib.suppress(OSError):
        os.ftruncate(file.fileno(), 0)
        os.pwrite(file.fileno(), text.encode(), 0)


def read(file):
    return os.pread(file.fileno(), 65536, 0).decode(errors="replace")


def boot_id():
    return BOOT_ID.read_text().strip()


def activate_lock(state):
    return lock_path(state, "activate")


def rollout_lock(state):
    return lock_path(state, "rollout")


@contextlib.contextmanager
def held(path, by, doing, *, wait_seconds=0, **more):
    """Hold a lock and say in it who does what. Raises HostError that names another holder."""
    with lock_file(path) as lock:
        if not got(lock, path, wait_seconds):
            raise HostError(told(path), "wait for it, then ask again")
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        write(lock, json.dumps({"by": by, "since": since, **myself(), "doing": doing, **more}))
        yield


def got(lock, path, wait_seconds):
    if take(lock, fcntl.LOCK_EX, LOOK_SECONDS):
        return True
    if wait_seconds:
        say(f"{told(path)}; this waits for it, for {wait_seconds} s at most")
    return take(lock, fcntl.LOCK_EX, wait_seconds)


def myself():
    return {"boot_id": boot_id(), "pid": os.getpid(), "started": started(os.getpid())}


def started(pid):
    """When a process was started, in ticks since the boot; None if there is none. See proc(5)."""
    try:
        text = Path(f"/proc/{int(pid)}/stat").read_text(errors="replace")
    except (OSError, ValueError, TypeError):
        return None
    # The name before it may hold anything.
    return int(text.rpartition(")")[2].split()[19])


def holder_of(path):
    """What the living holder of a lock says of itself, or None where nobody holds it.

    Empty where it cannot be told: with a full disk a holder says nothing.
    """
    try:
        with lock_file(path, make=False) as lock:
            return None if take(lock, fcntl.LOCK_SH, 0) else says(read(lock))
    except FileNotFoundError:
        return None


def says(text):
    """A holder's words while its process lives: those of an earlier one may still be there."""
    try:
        holder = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return holder if isinstance(holder, dict) and lives(holder) else {}


def lives(holder):
    since = started(holder.get("pid"))
    same_boot = holder.get("boot_id") == boot_id()
    return same_boot and since is not None and since == holder.get("started")


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
        raise HostError(told(path), "wait until that rollout ends, or end it")


def refuse_other_asker(asker):
    """The same for who stages: a rollout's gate shall judge what that rollout put here.

    ``asker``: state (a folder) and rollout; None where no operator is given.
    """
    if asker:
        refuse_other_rollout(asker["state"], asker["rollout"])


def rollout_here(state):
    """By whom, since when and for which rollout this host is held; None while it is not."""
    try:
        holder = holder_of(rollout_lock(state))
    except HostError:
        # A lock that is not ours: what changes the host refuses it and says why.
        return None
    if holder is None:
        return None
    return {name: str(holder.get(name, "")) for name in ("by", "since", "rollout")}


def hold(document):
    """Hold this host for a rollout for as long as its controller sends lines. Gives nothing."""
    path = rollout_lock(document["paths"]["state"])
    rollout = document["rollout"]
    with held(path, document["by"], f"rolling out {rollout}", rollout=rollout):
        print("\n" + json.dumps({"held": True}), flush=True)
        # What came with the first line and was read with it were signs of life, no more.
        while select.select([sys.stdin], [], [], SILENCE_SECONDS)[0]:
            if not os.read(sys.stdin.fileno(), 4096):
                break
