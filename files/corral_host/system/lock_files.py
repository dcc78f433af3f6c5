"""Lock files that nobody else can open: 0600, in a folder of 0700.

Whoever can open a file can lock it, and a lock that a stranger holds would stop all that waits.
"""

import contextlib
import errno
import fcntl
import os
import stat
import time
from pathlib import Path

from corral_host.system.commands import HostError

PAUSE_SECONDS = 0.05
# No blocking, as what lies there might be a pipe.
FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
ROOT = 0


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
        f"{path}: not used for locks, {why}. Next: see who put it there, remove it, ask again"
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
