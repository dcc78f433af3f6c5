"""`corral restore`: read a backup whole, then put each file where this controller keeps it."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from corral.backup.document import DOCUMENT, MOST_DOCUMENT_BYTES, Backup, BackupFile
from corral.backup.places import SECRET, Place, known_hosts_path, places
from corral.errors import CorralError
from corral.files import make_folder, put_in_place, read_small, reading, write_atomic, writing
from corral.inventory.hosts import Host
from corral.schema import parse_json
from corral.store.age import decrypting, is_encrypted

_FREE_SPACE = "free disk space there, then run the same command again"
_OTHER = "restore another backup"
_CHUNK_BYTES = 1024**2
_MOST_KNOWN_BYTES = 64 * 1024**2


@dataclass
class Restored:
    """The outcome: names of files that are new, were there already, differ, or have no place."""

    backup: Backup
    written: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    differ: dict[str, Path] = field(default_factory=dict)
    homeless: list[str] = field(default_factory=list)
    known_hosts: int = 0


def restore_backup(
    path: Path,
    root: Path,
    hosts: Sequence[Host],
    *,
    identities: Sequence[Path] = (),
    replace: bool = False,
) -> Restored:
    """Put the files of a backup into place; nothing is written before all of it was proved.

    + hosts: of the inventories, which say where keys, certificates and archives belong
    + replace: replace files that differ, each kept beside the new one as ``NAME.before-restore``
    Raises CorralError.
    """
    # Beside the checkout, on a disk of the operator's, and private.
    step = "free disk space there, or set TMPDIR"
    with writing(Path("temporary folder"), next_step=step), TemporaryDirectory() as folder:
        backup, whole = _read(path, identities, Path(folder))
        found = Restored(backup)
        known = places(root, hosts, archives=True)
        for file in backup.files:
            _place(file, whole[file.name], known, found, replace=replace)
    found.known_hosts = _know(backup, hosts)
    return found


def _read(path: Path, identities: Sequence[Path], folder: Path) -> tuple[Backup, dict[str, Path]]:
    """The document and a proved copy of each file. Raises CorralError."""
    with _plain(path, identities) as plain:
        try:
            with tarfile.open(fileobj=plain, mode="r|") as bundle:
                return _unpacked(bundle, path, folder)
        except (tarfile.TarError, EOFError) as error:
            raise CorralError(str(path), f"is no whole backup: {error}", _OTHER) from error


@contextmanager
def _plain(path: Path, identities: Sequence[Path]) -> Iterator[IO[bytes]]:
    with reading(path, next_step="name a file of `corral backup`"):
        encrypted = is_encrypted(path)
    if encrypted:
        with decrypting(path, identities) as plain:
            yield plain
        return
    with reading(path, next_step="name a file of `corral backup`"), path.open("rb") as file:
        yield file


def _unpacked(bundle: tarfile.TarFile, path: Path, folder: Path) -> tuple[Backup, dict[str, Path]]:
    entries = iter(bundle)
    first = next(entries, None)
    content = bundle.extractfile(first) if first and first.name == DOCUMENT else None
    if first is None or content is None or first.size > MOST_DOCUMENT_BYTES:
        raise CorralError(str(path), f"does not begin with {DOCUMENT}", _OTHER)
    backup = parse_json(Backup, content.read(), where=f"{path}: {DOCUMENT}", next_step=_OTHER)
    wanted, whole = {file.name: file for file in backup.files}, dict[str, Path]()
    for number, entry in enumerate(entries):
        file = wanted.get(entry.name)
        source = bundle.extractfile(entry) if entry.isreg() else None
        if file is None or source is None or entry.name in whole:
            raise CorralError(str(path), f"its document does not name {entry.name}", _OTHER)
        whole[entry.name] = folder / str(number)
        _copy(source, whole[entry.name], file, path)
    if missing := wanted.keys() - whole.keys():
        raise CorralError(str(path), f"lacks {len(missing)} files, {min(missing)} first", _OTHER)
    return backup, whole


def _copy(source: IO[bytes], target: Path, file: BackupFile, path: Path) -> None:
    digest, size_bytes = hashlib.sha256(), 0
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, SECRET)
    with os.fdopen(handle, "wb") as out:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            size_bytes += len(chunk)
            out.write(chunk)
    if (digest.hexdigest(), size_bytes) != (file.sha256, file.size_bytes):
        raise CorralError(str(path), f"{file.name} is damaged", _OTHER)


def _place(
    file: BackupFile, whole: Path, known: Sequence[Place], found: Restored, *, replace: bool
) -> None:
    target = _target(file.name, known)
    if target is None:
        found.homeless.append(file.name)
        return
    path, mode = target
    with reading(path, next_step="check that it can be read"):
        if path.exists() and _sha256(path) == file.sha256:
            found.same.append(file.name)
            return
        if path.exists() and not replace:
            found.differ[file.name] = path
            return
    _make_folders(path.parent, 0o700 if mode == SECRET else 0o755)
    if path.exists():
        aside = path.with_name(f"{path.name}.before-restore")
        _copy_to(path, aside, mode)
    _copy_to(whole, path, mode)
    found.written.append(file.name)


def _make_folders(folder: Path, mode: int) -> None:
    """Make a folder and its missing parents, all with ``mode``. Raises CorralError."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    for one in reversed(missing):
        make_folder(one, next_step=_FREE_SPACE, mode=mode)


def _target(name: str, known: Sequence[Place]) -> tuple[Path, int] | None:
    """Where a file belongs here; None where no inventory has a place for it."""
    for place in known:
        if place.is_file and name == place.name:
            return place.path, place.mode
        if not place.is_file and name.startswith(f"{place.name}/"):
            return place.path / name.removeprefix(f"{place.name}/"), place.mode
    return None


def _copy_to(source: Path, path: Path, mode: int) -> None:
    """Copy a file to its place by one rename."""
    temporary = path.with_name(f".{path.name}.restored")
    with writing(temporary, next_step=_FREE_SPACE):
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(handle, "wb") as out, source.open("rb") as content:
            os.fchmod(handle, mode)
            while chunk := content.read(_CHUNK_BYTES):
                out.write(chunk)
    put_in_place(temporary, path, next_step=_FREE_SPACE)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _know(backup: Backup, hosts: Sequence[Host]) -> int:
    """Add the keys of hosts that this controller does not know; returns how many lines."""
    missing: dict[Path, list[str]] = {}
    for host in hosts:
        path = known_hosts_path(host)
        known = _lines(path)
        wanted = missing.setdefault(path, [])
        for line in backup.known_hosts.get(host.name, ()):
            if line not in known and line not in wanted and line.isprintable():
                wanted.append(line)
    return sum(_append(path, lines) for path, lines in missing.items())


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    data = read_small(path, most_bytes=_MOST_KNOWN_BYTES, next_step=f"see {path}")
    return data.decode(errors="replace").splitlines()


def _append(path: Path, lines: Sequence[str]) -> int:
    if lines:
        make_folder(path.parent, next_step=_FREE_SPACE, mode=0o700)
        text = "".join(f"{line}\n" for line in (*_lines(path), *lines))
        write_atomic(path, text, next_step=_FREE_SPACE, mode=0o600)
    return len(lines)


def left_out(found: Restored, hosts: Mapping[str, Host]) -> list[str]:
    """Hosts of the backup that no inventory names here."""
    named = {name.split("/")[1] for name in found.homeless if name.count("/") > 1}
    return sorted(named - hosts.keys())
