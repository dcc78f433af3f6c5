"""Files that Corral writes on the controller: whole or not at all, on disk before they count."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from corral.errors import CorralError

# What shared folders say that know one name a file: some of machines, of buckets, of sshfs.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP})


def write_atomic(path: Path, content: str | bytes, *, next_step: str, mode: int = 0o644) -> None:
    """Write a file, or leave the one that is there as it is. Raises CorralError.

    + next_step: for a person whose disk is full, or who may not write there
    """
    with new_file(path, next_step=next_step, mode=mode) as file:
        file.write(_bytes(content))


def create_atomic(path: Path, content: str | bytes, *, next_step: str, mode: int = 0o644) -> bool:
    """Write a file that is not there yet; False, and nothing is changed, when it is.

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
    """A file to be written in the block; it has its name, and its bytes, once the block ended well.

    Raises CorralError for what the file system refuses; whatever is raised, nothing is left.
    """
    with writing(path, next_step=next_step), _temporary(path, mode) as (temporary, file):
        yield file
        _flush(file)
        _rename(temporary, path)


def put_in_place(whole: Path, path: Path, *, next_step: str) -> None:
    """Give a file that is whole its name, as `new_file` does. Raises CorralError."""
    with writing(path, next_step=next_step):
        sync(whole)
        _rename(whole, path)


def make_folder(path: Path, *, next_step: str, mode: int = 0o755) -> None:
    """Make a folder, and those above it, unless it is there. Raises CorralError."""
    with writing(path, next_step=next_step):
        path.mkdir(mode=mode, parents=True, exist_ok=True)


def read_small(path: Path, *, most_bytes: int, next_step: str) -> bytes:
    """The bytes of a plain file that cannot be large. Raises CorralError."""
    with reading(path, next_step=next_step):
        # A pipe would be waited for, a device has no end.
        if path.exists() and not path.is_file():
            raise CorralError(str(path), "cannot be read: not a file", next_step)
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise CorralError(str(path), f"is larger than {most_bytes} bytes", next_step)
    return data


@contextmanager
def writing(path: Path, *, next_step: str) -> Iterator[None]:
    """What the file system refuses in the block is a CorralError about ``path``."""
    with _told(path, "written", next_step):
        yield


@contextmanager
def reading(path: Path, *, next_step: str) -> Iterator[None]:
    """What the file system refuses in the block is a CorralError about ``path``."""
    with _told(path, "read", next_step):
        yield


def sync(path: Path) -> None:
    """A file, or the names in a folder, to the disk. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems have no such thing for folders.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(handle)


def _create_plain(path: Path, content: str | bytes, mode: int) -> bool:
    """The same by its own name from the start; gone again unless it is whole."""
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
    """A private file beside ``path``, gone after the block unless it was renamed."""
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}"
    # O_EXCL: never through a link that somebody put there.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            # Set, not inherited: a umask decides over no file of ours.
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
def _told(path: Path, what: str, next_step: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise CorralError(str(path), f"cannot be {what}: {reason}", next_step) from error
