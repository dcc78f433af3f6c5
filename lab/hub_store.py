"""Repositories of the stand-in hub: folder trees, read as snapshots."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path

DEFAULT_REVISION = "main"
_LFS_SUFFIXES = (".gguf", ".safetensors")


class NotFoundError(Exception):
    """Something is missing: the Hub's code for it (``X-Error-Code``) and a message."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


@dataclass(frozen=True)
class StoredFile:
    """One file of a revision; large files are LFS files, for which git has a pointer."""

    path: str
    location: Path
    size_bytes: int
    sha256: str
    git_blob_id: str

    @property
    def is_lfs(self) -> bool:
        return self.path.endswith(_LFS_SUFFIXES)

    @property
    def etag(self) -> str:
        return f'"{self.sha256 if self.is_lfs else self.git_blob_id}"'


@dataclass(frozen=True)
class Snapshot:
    """A repository at one revision; `commit` is a digest of its tree."""

    repository: str
    commit: str
    files: tuple[StoredFile, ...]

    def file(self, path: str) -> StoredFile:
        """Raises NotFoundError when the revision has no such file."""
        for file in self.files:
            if file.path == path:
                return file
        raise NotFoundError("EntryNotFound", f"{path} does not exist at {self.commit}")


class Store:
    """Repositories below `root`: ``repos/<org>/<name>/<revision label>/<path>``."""

    def __init__(self, root: Path) -> None:
        self._repositories = root / "repos"
        self._digests: dict[tuple[Path, int, int], tuple[str, str]] = {}
        self._lock = threading.Lock()

    def snapshot(self, repository: str, revision: str) -> Snapshot:
        """The repository at a revision, which is a label or a commit.

        Raises NotFoundError when there is no such repository or revision.
        """
        labels = self._labels(repository)
        if revision in labels:
            return self._read(repository, labels[revision])
        for folder in labels.values():
            snapshot = self._read(repository, folder)
            if snapshot.commit == revision:
                return snapshot
        raise NotFoundError("RevisionNotFound", f"{repository} has no revision {revision}")

    def _labels(self, repository: str) -> dict[str, Path]:
        parts = repository.split("/")
        folder = self._repositories.joinpath(*parts)
        if ".." in parts or not folder.is_dir():
            raise NotFoundError("RepoNotFound", f"there is no repository {repository}")
        return {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()}

    def _read(self, repository: str, folder: Path) -> Snapshot:
        locations = sorted(path for path in folder.rglob("*") if path.is_file())
        files = tuple(self._file(folder, location) for location in locations)
        lines = (f"{file.path}\0{file.sha256}\n" for file in files)
        tree = hashlib.sha1("".join(lines).encode(), usedforsecurity=False)
        return Snapshot(repository, tree.hexdigest(), files)

    def _file(self, folder: Path, location: Path) -> StoredFile:
        status = location.stat()
        key = (location, status.st_size, status.st_mtime_ns)
        with self._lock:
            if key not in self._digests:
                self._digests[key] = _digests(location)
            sha256, git_blob_id = self._digests[key]
        path = location.relative_to(folder).as_posix()
        return StoredFile(path, location, status.st_size, sha256, git_blob_id)


def _digests(location: Path) -> tuple[str, str]:
    """The sha256 of a file, and the git blob id of it or, for an LFS file, of its pointer."""
    with location.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if location.name.endswith(_LFS_SUFFIXES):
        return sha256, git_blob_id(lfs_pointer(sha256, location.stat().st_size))
    return sha256, git_blob_id(location.read_bytes())


def lfs_pointer(sha256: str, size_bytes: int) -> bytes:
    """The text that git keeps in place of an LFS file (git-lfs specification, version 1)."""
    version = "https://git-lfs.github.com/spec/v1"
    return f"version {version}\noid sha256:{sha256}\nsize {size_bytes}\n".encode()


def git_blob_id(content: bytes) -> str:
    blob = b"blob %d\0" % len(content) + content
    return hashlib.sha1(blob, usedforsecurity=False).hexdigest()
