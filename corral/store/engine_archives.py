"""The archive store on the controller: archives of engine releases, by release key.

They outlive the hosts that built them, and can be copied to another fleet. An archive counts only
with its description beside it, which is written last.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from corral_shared.text import printable_line
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator

from corral.errors import CorralError
from corral.files import (
    make_folder,
    new_file,
    put_in_place,
    read_small,
    reading,
    write_atomic,
    writing,
)
from corral.inventory.hosts import Host
from corral.names import FileName
from corral.paths import default_archives_folder
from corral.schema import Frozen

SUFFIX = ".tar.zst"
# A description lists the server's flags and all files: about 100 KB for a few hundred, and some
# 15 MB for the 60,000 of a large Python environment.
_MOST_BYTES = 64 * 1024**2
_CHUNK_BYTES = 8 * 1024**2
_SEE = "check that the file can be read, then run the same command again"
_FREE_SPACE = "free disk space there, or name another folder, then run the same command again"


class _Manifest(BaseModel):
    """The keys of a manifest that the controller reads; other versions may have more."""

    model_config = ConfigDict(extra="allow", strict=True)

    flags: list[str]
    size_bytes: int | None = Field(default=None, gt=0, lt=2**40)
    builder: str = "?"
    # Not strict, so that it is read from text: JSON has no dates.
    built_at: Annotated[AwareDatetime, Field(strict=False)] | None = None


class Archive(Frozen):
    """The archive of one release: size and digest of the file, and the manifest in it."""

    engine: Annotated[FileName, Field(pattern=r"^\w[\w.-]*$")]
    key: Annotated[FileName, Field(pattern=r"^[0-9a-f]{12}-\w+-[0-9a-f]{8}$")]
    size_bytes: int = Field(gt=0, lt=2**50)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    manifest: dict[str, Any]

    @field_validator("manifest")
    @classmethod
    def _readable(cls, manifest: dict[str, Any]) -> dict[str, Any]:
        _Manifest.model_validate(manifest)
        return manifest

    @property
    def flags(self) -> frozenset[str]:
        """The flags that the server's own --help lists."""
        return frozenset(self._parsed.flags)

    @property
    def unpacked_bytes(self) -> int | None:
        """Size of all its files by its manifest; a host unpacks no more than that."""
        return self._parsed.size_bytes

    @property
    def builder(self) -> str:
        """The host that built it, by its own name."""
        return printable_line(self._parsed.builder)

    @property
    def built_at(self) -> datetime | None:
        """When it was built, by that host's clock."""
        return self._parsed.built_at

    @property
    def _parsed(self) -> _Manifest:
        return _Manifest.model_validate(self.manifest)


class ArchiveStore:
    """Archives below one folder: ``<engine>/<key>.tar.zst`` and ``<key>.json``.

    Every method raises CorralError for errors of the file system, such as a full disk.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, archive: Archive) -> Path:
        """The path of an archive in the store."""
        return self.folder / archive.engine / f"{archive.key}{SUFFIX}"

    def find(self, engine: str, key: str) -> Archive | None:
        """The archive of a release, or None; checks its size, ``sound`` checks its bytes."""
        described = self.folder / engine / f"{key}.json"
        with reading(described, next_step=_SEE):
            if not described.is_file():
                return None
            archive = _read(described)
            if (archive.engine, archive.key) != (engine, key):
                what = f"describes {archive.engine} {archive.key}"
                step = f"rm {described}, then run the same command again"
                raise CorralError(str(described), what, step)
            path = self.path(archive)
            complete = path.is_file() and path.stat().st_size == archive.size_bytes
        return archive if complete else None

    def all(self) -> list[Archive]:
        """Every archive, sorted by engine and key."""
        described = sorted(self.folder.glob("*/*.json"))
        archives = (self.find(path.parent.name, path.stem) for path in described)
        return [archive for archive in archives if archive]

    def sound(self, archive: Archive) -> bool:
        """Whether the stored bytes match their digest."""
        return _sha256(self.path(archive)) == archive.sha256

    def remove(self, archive: Archive) -> None:
        """Remove an archive, its description first."""
        for path in (self._described(archive), self.path(archive)):
            with writing(path, next_step=_SEE):
                path.unlink(missing_ok=True)

    def incoming(self, engine: str, key: str) -> Path:
        """A path to receive an archive at, for ``add``."""
        folder = self.folder / engine
        make_folder(folder, next_step=_FREE_SPACE)
        return folder / f".{key}.{secrets.token_hex(8)}"

    def add(self, received: Path, archive: Archive) -> None:
        """Move a received file into the store; it is removed where it does not match ``archive``.

        Raises CorralError.
        """
        try:
            if _sha256(received) != archive.sha256:
                raise _changed(archive)
            put_in_place(received, self.path(archive), next_step=_FREE_SPACE)
        finally:
            received.unlink(missing_ok=True)
        self._describe(archive)

    def export(self, archive: Archive, folder: Path) -> Path:
        """Copy an archive and its description to a folder; returns the description's path.

        Raises CorralError where the bytes in the store are damaged.
        """
        make_folder(folder, next_step=_FREE_SPACE)
        name, path = f"{archive.engine}-{archive.key}", self.path(archive)
        what = "its bytes in the store are damaged"
        damaged = CorralError(f"{archive.engine} {archive.key}", what, f"rm {path}")
        _copy(path, folder / f"{name}{SUFFIX}", archive, otherwise=damaged)
        described = folder / f"{name}.json"
        _write(described, archive)
        return described

    def import_from(self, described: Path) -> Archive:
        """Copy an exported archive into the store. Raises CorralError."""
        archive = _read(described)
        source = described.with_name(f"{archive.engine}-{archive.key}{SUFFIX}")
        with reading(source, next_step=_SEE):
            if not source.is_file():
                raise CorralError(str(source), "is missing", f"copy it beside {described.name}")
        self._copy_in(source, archive)
        return archive

    def copy_from(self, other: ArchiveStore, archive: Archive) -> None:
        """Copy an archive of another store into this one. Raises CorralError for a damaged one."""
        self._copy_in(other.path(archive), archive)

    def _copy_in(self, source: Path, archive: Archive) -> None:
        target = self.path(archive)
        make_folder(target.parent, next_step=_FREE_SPACE)
        _copy(source, target, archive, otherwise=_changed(archive))
        self._describe(archive)

    def _described(self, archive: Archive) -> Path:
        return self.path(archive).with_name(f"{archive.key}.json")

    def _describe(self, archive: Archive) -> None:
        _write(self._described(archive), archive)


def archives_folder(host: Host) -> Path:
    """The folder of archives for a host on this controller."""
    return Path(host.spec.archives_folder or default_archives_folder())


def _changed(archive: Archive) -> CorralError:
    what = "the received bytes do not match its digest"
    return CorralError(f"{archive.engine} {archive.key}", what, "run the same command again")


def _read(path: Path) -> Archive:
    data = read_small(path, most_bytes=_MOST_BYTES, next_step=_SEE)
    try:
        return Archive.model_validate_json(data)
    except ValidationError as error:
        what = "is not the description of an archive, or damaged"
        step = f"rm {path}, then run the same command again"
        raise CorralError(str(path), what, step) from error


def _write(path: Path, archive: Archive) -> None:
    write_atomic(path, archive.model_dump_json(indent=2) + "\n", next_step=_FREE_SPACE)


def _copy(source: Path, target: Path, archive: Archive, *, otherwise: CorralError) -> None:
    """Copy a file and check its digest; raises ``otherwise`` where it differs."""
    digest = hashlib.sha256()
    with new_file(target, next_step=_FREE_SPACE) as file:
        for block in _blocks(source):
            digest.update(block)
            file.write(block)
        if digest.hexdigest() != archive.sha256:
            raise otherwise


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    for block in _blocks(path):
        digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with reading(path, next_step=_SEE), path.open("rb") as file:
        while block := file.read(_CHUNK_BYTES):
            yield block
