"""The folder of a bundle while it is written: each file appears whole, and is not made twice.

A journal has the digest of each file that is in place, so that a command that was killed goes on
where it stopped. A file counts only while it has the size and time that the journal has.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from corral.errors import CorralError
from corral.files import make_folder, reading, sync, writing
from corral.offline.manifest import DOCUMENT, KINDS, SIGNATURE, WORK, BundleFile
from corral.schema import Frozen

FREE_SPACE = "free disk space there, or name another folder, then run the same command again"
_CHUNK_BYTES = 4 * 1024**2
_JOURNAL, _LOCK = "journal", "lock"
# For what the file system itself needs.
_SPARE_BYTES = 64 * 1024**2


class _Done(Frozen):
    """A line of the journal."""

    file: BundleFile
    mtime_ns: int


class BundleFolder:
    """A folder that one process writes at a time. Methods raise CorralError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.work = path / WORK
        self._done = dict(self._journal())

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[BundleFolder]:
        """The folder, while no other process writes it."""
        if path.exists() and not path.is_dir():
            raise CorralError(str(path), "is not a folder", "name a folder")
        _refuse_foreign(path)
        make_folder(path / WORK, next_step=FREE_SPACE)
        lock = path / WORK / _LOCK
        with writing(lock, next_step=FREE_SPACE):
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            what = "is being written by another `corral bundle`"
            raise CorralError(str(path), what, "wait until it has ended") from error
        else:
            yield cls(path)
        finally:
            os.close(handle)

    def known(self, name: str) -> BundleFile | None:
        """A file that is in place, with the digest of when it was put there."""
        done, path = self._done.get(name), self.path / name
        if done is None or not path.is_file():
            return None
        found = path.stat()
        same = (found.st_size, found.st_mtime_ns) == (done.file.size_bytes, done.mtime_ns)
        return done.file if same else None

    def has(self, name: str, sha256: str) -> bool:
        """Whether a file with a digest is in place."""
        found = self.known(name)
        return found is not None and found.sha256 == sha256

    def partial(self, name: str) -> Path:
        """Where a file is made, for ``finish``: the same path after an interruption."""
        digest = hashlib.sha256(name.encode()).hexdigest()
        return self.work / f"{digest[:32]}.part"

    def finish(self, name: str, sha256: str | None = None) -> BundleFile:
        """Put the file at ``partial(name)`` in place.

        + sha256: what it must have; a file with another one is removed
        """
        partial, path = self.partial(name), self.path / name
        found = digest_of(partial)
        if sha256 is not None and found.sha256 != sha256:
            partial.unlink()
            what = f"has sha256 {found.sha256[:16]}..., {sha256[:16]}... is wanted"
            raise CorralError(name, what, "run the same command again")
        file = BundleFile(name=name, size_bytes=found.size_bytes, sha256=found.sha256)
        make_folder(path.parent, next_step=FREE_SPACE)
        with writing(path, next_step=FREE_SPACE):
            sync(partial)
            partial.replace(path)
            sync(path.parent)
        self._note(file)
        return file

    def write(self, name: str, content: bytes) -> BundleFile:
        """Put a small file in place."""
        if self.has(name, hashlib.sha256(content).hexdigest()):
            return self._done[name].file
        partial = self.partial(name)
        with writing(partial, next_step=FREE_SPACE):
            partial.write_bytes(content)
        return self.finish(name)

    def copy(self, name: str, source: Path, sha256: str | None = None) -> BundleFile:
        """Copy a file into place; ``sha256``: what it must have."""
        known = self.known(name)
        if known and (sha256 is None or known.sha256 == sha256):
            return known
        partial = self.partial(name)
        with (
            reading(source, next_step="check that the file can be read"),
            source.open("rb") as read,
            writing(partial, next_step=FREE_SPACE),
            partial.open("wb") as out,
        ):
            shutil.copyfileobj(read, out, _CHUNK_BYTES)
        return self.finish(name, sha256)

    def refuse_small(self, wanted_bytes: int) -> None:
        """Raises CorralError where the disk has no room for what is still to be written."""
        begun = sum(path.stat().st_size for path in self.work.glob("*.part"))
        free = shutil.disk_usage(self.path).free
        if wanted_bytes - begun + _SPARE_BYTES > free:
            gib = 1024**3
            what = f"has {free / gib:.1f} GiB free, and {wanted_bytes / gib:.1f} GiB are to come"
            raise CorralError(str(self.path), what, FREE_SPACE)

    def begin(self) -> None:
        """Before the first change: what is there is no bundle until it is described again."""
        for name in (SIGNATURE, DOCUMENT):
            with writing(self.path / name, next_step=FREE_SPACE):
                (self.path / name).unlink(missing_ok=True)

    def keep_only(self, names: set[str]) -> None:
        """Remove files of an earlier run that the bundle does not have."""
        for kind in KINDS:
            for path in sorted((self.path / kind).rglob("*"), reverse=True):
                name = path.relative_to(self.path).as_posix()
                with writing(path, next_step=FREE_SPACE):
                    if path.is_dir() and not path.is_symlink():
                        if not any(path.iterdir()):
                            path.rmdir()
                    elif name not in names:
                        path.unlink()

    def clear_work(self) -> None:
        """Remove what was needed to write it, after it is described; the journal stays."""
        for path in self.work.iterdir():
            if path.name in (_JOURNAL, _LOCK):
                continue
            with writing(path, next_step=FREE_SPACE):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def _journal(self) -> Iterator[tuple[str, _Done]]:
        path = self.work / _JOURNAL
        if not path.is_file():
            return
        with reading(path, next_step=f"rm {path}"):
            lines = path.read_bytes().splitlines()
        for line in lines:
            try:
                done = _Done.model_validate_json(line)
            except ValidationError:
                # The line that a killed process was writing.
                continue
            yield done.file.name, done

    def _note(self, file: BundleFile) -> None:
        done = _Done(file=file, mtime_ns=(self.path / file.name).stat().st_mtime_ns)
        journal = self.work / _JOURNAL
        with writing(journal, next_step=FREE_SPACE), journal.open("ab") as out:
            # A line of its own, also after one that was cut.
            out.write(b"\n" + done.model_dump_json().encode() + b"\n")
        self._done[file.name] = done


class Digest(Frozen):
    """Size and digest of a file."""

    size_bytes: int
    sha256: str


def digest_of(path: Path) -> Digest:
    """Raises CorralError for a file that cannot be read."""
    step = "copy the bundle again, from a disk that can be read"
    with reading(path, next_step=step), path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return Digest(size_bytes=file.tell(), sha256=sha256)


def _refuse_foreign(path: Path) -> None:
    """Raises CorralError for a folder with other things in it: some of them would be removed."""
    if not path.is_dir() or (path / DOCUMENT).is_file() or (path / WORK).is_dir():
        return
    # A new file system has this one.
    others = sorted({one.name for one in path.iterdir()} - {"lost+found"})
    if others:
        what = f"is not empty and no bundle: it has {others[0]}"
        raise CorralError(str(path), what, "name an empty folder, such as a new one in it")
