"""`corral backup`: write what only this controller has to one file."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

from corral.backup.document import DOCUMENT, Backup, BackupFile, NamedArchive
from corral.backup.places import SECRET, known_lines, places
from corral.errors import CorralError
from corral.files import new_file, reading
from corral.inventory.hosts import Host
from corral.remote.client import current_operator
from corral.store.age import encrypting
from corral.store.engine_archives import ArchiveStore, archives_folder

_FREE_SPACE = "free disk space there, or name another file"
_AGAIN = "run the same command again, while no deploy runs"
_CHUNK_BYTES = 1024**2


def write_backup(
    path: Path,
    root: Path,
    hosts: Sequence[Host],
    *,
    recipients: Sequence[str] = (),
    archives: bool = False,
) -> Backup:
    """Write a backup atomically, mode 0600; an existing file is replaced once it is complete.

    + recipients: of age; plain without any; + archives: with the archives themselves
    Raises CorralError.
    """
    paths = _paths(root, hosts, archives=archives)
    paths.pop(path.resolve(), None)
    backup = Backup(
        at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        by=current_operator(),
        files=tuple(_described(name, one) for one, name in paths.items()),
        known_hosts={host.name: tuple(lines) for host in hosts if (lines := known_lines(host))},
        archives=tuple(_archives(hosts)),
    )
    by_name = {name: one for one, name in paths.items()}
    with (
        new_file(path, next_step=_FREE_SPACE, mode=SECRET) as out,
        encrypting(recipients, out) if recipients else nullcontext(out) as plain,
        tarfile.open(fileobj=plain, mode="w|", format=tarfile.PAX_FORMAT) as bundle,
    ):
        document = backup.model_dump_json(indent=1).encode()
        _add(bundle, DOCUMENT, len(document), io.BytesIO(document))
        for file in backup.files:
            source = by_name[file.name]
            with reading(source, next_step=_AGAIN), source.open("rb") as content:
                _add(bundle, file.name, file.size_bytes, _Exactly(content, file, source))
    return backup


def _paths(root: Path, hosts: Sequence[Host], *, archives: bool) -> dict[Path, str]:
    """Path -> name; a file that two places have counts once."""
    found: dict[Path, str] = {}
    for place in places(root, hosts, archives=archives):
        for name, path in place.files():
            found.setdefault(path.resolve(), name)
    return found


def _described(name: str, path: Path) -> BackupFile:
    digest, size_bytes = hashlib.sha256(), 0
    with reading(path, next_step=_AGAIN), path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size_bytes += len(chunk)
    return BackupFile(name=name, size_bytes=size_bytes, sha256=digest.hexdigest())


def _archives(hosts: Sequence[Host]) -> list[NamedArchive]:
    found = {}
    for folder in dict.fromkeys(archives_folder(host) for host in hosts):
        for one in ArchiveStore(folder).all():
            found[(one.engine, one.key)] = NamedArchive(
                engine=one.engine, key=one.key, size_bytes=one.size_bytes, sha256=one.sha256
            )
    return list(found.values())


class _Exactly:
    """A file that is as it was described, else reading its end fails."""

    def __init__(self, file: io.BufferedIOBase | io.BufferedReader, described: BackupFile,
                 path: Path) -> None:  # fmt: skip
        self._file, self._described, self._path = file, described, path
        self._digest, self._left = hashlib.sha256(), described.size_bytes

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(min(size, self._left) if size >= 0 else self._left)
        self._digest.update(data)
        self._left -= len(data)
        if not data or not self._left:
            self._check()
        return data

    def _check(self) -> None:
        if self._left or self._digest.hexdigest() != self._described.sha256:
            raise CorralError(str(self._path), "changed while it was read", _AGAIN)


def _add(
    bundle: tarfile.TarFile, name: str, size_bytes: int, content: io.BytesIO | _Exactly
) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = size_bytes, SECRET
    bundle.addfile(entry, content)
