"""What a backup says of itself, and its format: a tar archive that begins with this document."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from corral.names import HubPath
from corral.schema import Frozen

DOCUMENT = "backup.json"
# A file of weights is never in a backup; an archive of an engine may take some gigabytes.
MOST_FILE_BYTES = 2**38
MOST_DOCUMENT_BYTES = 64 * 1024**2


class BackupFile(Frozen):
    """A file of a backup, under the name of its place."""

    name: HubPath
    size_bytes: int = Field(ge=0, lt=MOST_FILE_BYTES)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class NamedArchive(Frozen):
    """An archive of an engine release; in the backup only where its files are listed, too."""

    engine: str
    key: str
    size_bytes: int
    sha256: str


class Backup(Frozen):
    """The document: who made the backup, when, and each file in it.

    + known_hosts: host -> its lines; + archives: those that the controller had
    """

    version: Literal[1] = 1
    at: str
    by: str
    files: tuple[BackupFile, ...]
    known_hosts: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    archives: tuple[NamedArchive, ...] = ()
