"""Atomic, durable writes of files on the controller."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from corral.errors import CorralError

# Errors of file systems without hard links: some shares of virtual machines, buckets, sshfs.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})


def write_atomic(path: Path, content: str | bytes, *, next_step: str, mode: int = 0o644) -> None:
    """Write a file atomically: on a failure the existing file stays. Raises CorralError.

    + next_step: what to do where the disk is full or the folder is not writable
    """
    with new_file(path, next_step=next_step, mode=mode) as file:
        file.write(_bytes(content))


def create_atomic(path: Path, content: str | bytes, *, next_step: str, mode: int = 0o644) -> bool:
    """Write a file unless it exists; False, with nothing changed, where it does.

    Raises CorralError.
    """
    with writing(path, next_step=next_step), _temporary(path, mode) as (temporary, file):
        file.write(_bytes(content))
        _flush(file)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return _create_plain(path, content, mode)
        sync(path.parent)
        return True


@contextmanager
def new_file(path: Path, *, next_step: str, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Open a temporary file; it gets its name when the block ends without an exception.

    Raises CorralError for errors of the file system. Any exception removes the temporary file.
    """
    with writing(path, next_step=next_step), _temporary(path, mode) as (temporary, file):
        yield file
        _flush(file)
        _rename(temporary, path)


def put_in_place(whole: Path, path: Path, *, next_step: str) -> None:
    """Sync a complete file and rename it to ``path``, as `new_file` does. Raises CorralError."""
    with writing(path, next_step=next_step):
        sync(whole)
        _rename(whole, path)


def make_folder(path: Path, *, next_step: str, mode: int = 0o755) -> None:
    """Make a folder and its parents unless it exists. Raises CorralError."""
    with writing(path, next_step=next_step):
        path.mkdir(mode=mode, parents=True, exist_ok=True)


def read_small(path: Path, *, most_bytes: int, next_step: str) -> bytes:
    """The bytes of a regular file of at most ``most_bytes``. Raises CorralError."""
    with reading(path, next_step=next_step):
        # Reading a pipe would block, and a device has no end.
        if path.exists() and not path.is_file():
            raise CorralError(str(path), "cannot be read: not a file", next_step)
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise CorralError(str(path), f"is larger than {most_bytes} bytes", next_step)
    return data


@contextmanager
def writing(path: Path, *, next_step: str) -> Iterator[None]:
    """Turn an OSError in the block into a CorralError about writing ``path``."""
    with _os_errors(path, "written", next_step):
        yield


@contextmanager
def reading(path: Path, *, next_step: str) -> Iterator[None]:
    """Turn an OSError in the block into a CorralError about reading ``path``."""
    with _os_errors(path, "read", next_step):
        yield


def sync(path: Path) -> None:
    """Sync a file, or the names in a folder, to disk. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems cannot sync folders.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(handle)


def _create_plain(path: Path, content: str | bytes, mode: int) -> bool:
    """Like create_atomic() without a hard link; removes the file where it cannot be completed."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return False
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, mode)
            file.write(_bytes(content))
            _flush(file)
    except BaseException:
        path.unlink()
        raise
    sync(path.parent)
    return True


@contextmanager
def _temporary(path: Path, mode: int) -> Iterator[tuple[Path, BinaryIO]]:
    """A private file beside ``path``, removed after the block unless it was renamed."""
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}"
    # O_EXCL: never follow a link that another user put there.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            # Set explicitly, so that the umask has no effect.
            os.fchmod(handle, mode)
            yield temporary, file
    finally:
        with suppress(OSError):
            temporary.unlink()


def _rename(whole: Path, path: Path) -> None:
    whole.replace(path)
    sync(path.parent)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


@contextmanager
def _os_errors(path: Path, what: str, next_step: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise CorralError(str(path), f"cannot be {what}: {reason}", next_step) from error
