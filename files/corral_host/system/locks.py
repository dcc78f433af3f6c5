"""Locks that name their holder and end with its process.

The files are 0600 in a folder of 0700: any user who can open a file can lock it, and so could
block every deploy.
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
# Non-blocking, since the path might be a pipe.
FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
ROOT = 0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# holder_of() takes a lock for a moment to see whether it is free.
LOOK_SECONDS = 1
# A controller that sends nothing for so long is gone.
SILENCE_SECONDS = 60


def lock_path(state, name):
    return Path(state) / "locks" / f"{name}.lock"


@contextlib.contextmanager
def lock_file(path, *, make=True):
    """A lock file, open for unbuffered reading and writing; closing it releases its lock.

    Without ``make`` it is open for reading alone: the unit that writes figures for monitoring sees
    a file system that is read-only. Raises HostError if the file or its folder belongs to another
    user, FileNotFoundError if it does not exist and ``make`` is False.
    """
    path = Path(path)
    folder = private_folder(path.parent, make)
    try:
        handle = opened(path, folder, make)
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise refused(path, "it is no plain file")
    with os.fdopen(handle, "r+b" if make else "rb", buffering=0) as file:
        set_mode(handle, path, 0o600)
        yield file


def private_folder(path, make=True):
    """A handle of a folder that only root may enter; its mode is corrected if it is wider."""
    if make and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
    with refused_kinds(path):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        set_mode(handle, path, 0o700)
    except BaseException:
        os.close(handle)
        raise
    return handle


def opened(path, folder, make):
    with refused_kinds(path):
        try:
            # Opening one that exists needs no disk space.
            how = os.O_RDWR if make else os.O_RDONLY
            return os.open(path.name, FLAGS | how, dir_fd=folder)
        except FileNotFoundError:
            if not make:
                raise
            return os.open(path.name, FLAGS | os.O_RDWR | os.O_CREAT, 0o600, dir_fd=folder)


def set_mode(handle, path, mode):
    found = os.fstat(handle)
    if found.st_uid not in (ROOT, os.geteuid()):
        raise refused(path, f"it belongs to user {found.st_uid}")
    if stat.S_IMODE(found.st_mode) != mode:
        os.fchmod(handle, mode)


@contextlib.contextmanager
def refused_kinds(path):
    """Raises HostError if the path is of the wrong kind, such as a link; other faults pass."""
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
    """Take the lock; False if that was not possible within so many seconds."""
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
    """Write the text of a lock, which is for people only: the lock holds on a full disk, too."""
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
    """Hold a lock and write into it who does what. Raises HostError that names another holder."""
    with lock_file(path) as lock:
        if not got(lock, path, wait_seconds):
            raise HostError(describe_holder(path), "wait for it, then ask again")
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        text = json.dumps({"by": by, "since": since, **own_process(), "doing": doing, **more})
        write(lock, text)
        yield


def got(lock, path, wait_seconds):
    if take(lock, fcntl.LOCK_EX, LOOK_SECONDS):
        return True
    if wait_seconds:
        say(f"{describe_holder(path)}; waiting for it, at most {wait_seconds} s")
    return take(lock, fcntl.LOCK_EX, wait_seconds)


def own_process():
    return {"boot_id": boot_id(), "pid": os.getpid(), "started": started(os.getpid())}


def started(pid):
    """Start time of a process in ticks since boot; None if it does not exist. See proc(5)."""
    try:
        text = Path(f"/proc/{int(pid)}/stat").read_text(errors="replace")
    except (OSError, ValueError, TypeError):
        return None
    # The program's name, in parentheses before these fields, may contain anything.
    return int(text.rpartition(")")[2].split()[19])


def holder_of(path):
    """What the lock's file says of its living holder; None if nobody holds the lock.

    Empty if the holder is unknown: on a full disk it could not write its name.
    """
    try:
        with lock_file(path, make=False) as lock:
            return None if take(lock, fcntl.LOCK_SH, 0) else parse_holder(read(lock))
    except FileNotFoundError:
        return None


def parse_holder(text):
    """The holder in a lock's text, if its process lives; the text may be an earlier holder's."""
    try:
        holder = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return holder if isinstance(holder, dict) and lives(holder) else {}


def lives(holder):
    since = started(holder.get("pid"))
    same_boot = holder.get("boot_id") == boot_id()
    return same_boot and since is not None and since == holder.get("started")


def describe_holder(path):
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
        raise HostError(describe_holder(path), "wait until that rollout ends, or end it")


def refuse_other_operator(operator):
    """Raises HostError if the current operator may not stage while another rollout holds this host.

    A rollout's gate has to judge what that rollout staged. ``operator``: the document's ``asker``
    (state, a folder, and rollout); None if the document names no operator.
    """
    if operator:
        refuse_other_rollout(operator["state"], operator["rollout"])


def rollout_here(state):
    """Who holds this host, since when and for which rollout; None while nobody does."""
    try:
        holder = holder_of(rollout_lock(state))
    except HostError:
        # The file is not Corral's. Commands that change the host refuse it and say why.
        return None
    if holder is None:
        return None
    return {name: str(holder.get(name, "")) for name in ("by", "since", "rollout")}


def hold(document):
    """Hold this host for a rollout for as long as its controller sends lines."""
    path = rollout_lock(document["paths"]["state"])
    rollout = document["rollout"]
    with held(path, document["by"], f"rolling out {rollout}", rollout=rollout):
        print("\n" + json.dumps({"held": True}), flush=True)
        # Lines that were read together with the first one were only signs of life.
        while select.select([sys.stdin], [], [], SILENCE_SECONDS)[0]:
            if not os.read(sys.stdin.fileno(), 4096):
                break
