"""File locks that end with their holder's process."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corral.errors import CorralError


@contextmanager
def refuse_others(path: Path, doing: str) -> Iterator[None]:
    """Hold the lock; raises CorralError naming the holder when somebody else has it."""
    with _held(path, fcntl.LOCK_EX | fcntl.LOCK_NB, doing):
        yield


@contextmanager
def wait_for_others(path: Path, doing: str) -> Iterator[None]:
    """Hold the lock; waits while somebody else has it."""
    with _held(path, fcntl.LOCK_EX, doing):
        yield


@contextmanager
def _held(path: Path, how: int, doing: str) -> Iterator[None]:
    fd = _locked(path, how)
    try:
        os.truncate(fd, 0)
        os.write(fd, f"{doing}, process {os.getpid()}".encode())
        yield
    finally:
        # Remove the file with the lock, so that nothing is left.
        path.unlink()
        os.close(fd)


def _locked(path: Path, how: int) -> int:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            # Another lab, which was just removed, removed the empty folder.
            continue
        try:
            fcntl.flock(fd, how)
        except BlockingIOError as busy:
            holder = path.read_text() or "unknown"
            os.close(fd)
            raise CorralError(
                f"the lab at {path.with_suffix('')}", f"is in use: {holder}", "wait for it to end"
            ) from busy
        if _is_still(path, fd):
            return fd
        # The last holder removed the file between open() and flock().
        os.close(fd)


def _is_still(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False
