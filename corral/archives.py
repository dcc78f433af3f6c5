"""The archive store on the controller: engine releases as they were built, by their key.

It survives the hosts that built them, and can be given to another fleet. An archive counts once
its description is beside it, which is written last.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from corral.errors import CorralError
from corral.inventory import Host
from corral.schema import Frozen
from corral.settings import default_archives_folder

SUFFIX = ".tar.zst"


class Archive(Frozen):
    """One release, packed: what its bytes must be, and the manifest that is in it."""

    engine: str = Field(pattern=r"^\w[\w.-]*$")
    key: str = Field(pattern=r"^[0-9a-f]{12}-\w+-[0-9a-f]{8}$")
    size_bytes: int = Field(gt=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    manifest: dict[str, Any]

    @property
    def flags(self) -> frozenset[str]:
        """What the server's own --help lists."""
        return frozenset(self.manifest["flags"])


class ArchiveStore:
    """Archives below one folder: ``<engine>/<key>.tar.zst`` and ``<key>.json``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, archive: Archive) -> Path:
        """Where the bytes of an archive are, or will be."""
        return self.folder / archive.engine / f"{archive.key}{SUFFIX}"

    def find(self, engine: str, key: str) -> Archive | None:
        """The archive of a release, by name and size; ``sound`` reads its bytes."""
        described = self.folder / engine / f"{key}.json"
        if not described.is_file():
            return None
        archive = _read(described)
        path = self.path(archive)
        whole = path.is_file() and path.stat().st_size == archive.size_bytes
        return archive if whole else None

    def all(self) -> list[Archive]:
        """Every archive, by engine and key."""
        found = (self.find(p.parent.name, p.stem) for p in sorted(self.folder.glob("*/*.json")))
        return [archive for archive in found if archive]

    def sound(self, archive: Archive) -> bool:
        """Whether the bytes are those that were put here."""
        return _sha256(self.path(archive)) == archive.sha256

    def remove(self, archive: Archive) -> None:
        """Forget an archive, its description first."""
        self.path(archive).with_name(f"{archive.key}.json").unlink(missing_ok=True)
        self.path(archive).unlink(missing_ok=True)

    def incoming(self, engine: str, key: str) -> Path:
        """A file to receive an archive in; ``add`` takes it from there."""
        folder = self.folder / engine
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f".{key}.{os.getpid()}"

    def add(self, received: Path, archive: Archive) -> None:
        """Take a received file in; one that is not what ``archive`` says is removed.

        Raises CorralError.
        """
        try:
            if _sha256(received) != archive.sha256:
                what = "the bytes that arrived are not those that were sent"
                raise CorralError(f"{archive.engine} {archive.key}", what, "do it again")
            _sync(received)
            received.replace(self.path(archive))
        finally:
            received.unlink(missing_ok=True)
        _write(self.path(archive).with_name(f"{archive.key}.json"), archive)

    def give(self, archive: Archive, folder: Path) -> Path:
        """Copy an archive and its description into a folder; gives the description's path.

        Raises CorralError for bytes that rotted here.
        """
        if not self.sound(archive):
            what = "its bytes in the store are damaged"
            raise CorralError(f"{archive.engine} {archive.key}", what, f"rm {self.path(archive)}")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.path(archive), folder / f"{archive.engine}-{archive.key}{SUFFIX}")
        described = folder / f"{archive.engine}-{archive.key}.json"
        _write(described, archive)
        return described

    def take(self, described: Path) -> Archive:
        """Copy what ``give`` made into the store. Raises CorralError."""
        archive = _read(described)
        source = described.with_name(f"{archive.engine}-{archive.key}{SUFFIX}")
        if not source.is_file():
            raise CorralError(str(source), "is not there", f"copy it beside {described.name}")
        received = self.incoming(archive.engine, archive.key)
        shutil.copyfile(source, received)
        self.add(received, archive)
        return archive


def archives_folder(host: Host) -> Path:
    """Where the archives for a host are kept on this controller."""
    return Path(host.spec.archives_folder or default_archives_folder())


def _read(path: Path) -> Archive:
    try:
        return Archive.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        what = "is not the description of an archive, or damaged"
        raise CorralError(str(path), what, f"rm {path}, then do it again") from error


def _write(path: Path, archive: Archive) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(archive.model_dump_json(indent=2) + "\n", encoding="utf-8")
    _sync(partial)
    partial.replace(path)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
