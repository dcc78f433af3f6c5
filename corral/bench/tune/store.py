"""Records of tuned instances on the controller: a file for each release, profile and requests."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from corral.bench.store import Pending
from corral.bench.tune.record import Record
from corral.errors import CorralError
from corral.files import make_folder, read_small, write_atomic, writing
from corral.names import safe_file_name, safe_host_name

_MOST_BYTES = 64 * 1024**2
_FREE_SPACE = (
    "free disk space, or name another folder with --results, then run the same command again"
)


class TuneStore:
    """Files ``<host>/<instance>/<digest>.json`` below a folder; the digest is of the subject."""

    def __init__(self, folder: Path, subject: Any) -> None:
        self._folder = folder
        text = json.dumps(subject, sort_keys=True)
        self._name = hashlib.sha256(text.encode()).hexdigest()[:16]

    def path(self, host: str, instance: str) -> Path:
        """The file of a record. Raises CorralError for a name that is no file's."""
        step = "rename it in the inventory"
        safe_host_name(host, where="results", next_step=step)
        safe_file_name(instance, where="results", next_step=step)
        return self._folder / host / instance / f"{self._name}.json"

    def record(self, host: str, instance: str) -> Record | None:
        """What is kept, or None. Raises CorralError for a damaged file."""
        path = self.path(host, instance)
        if not path.exists():
            return None
        step = "remove it, which forgets its runs, or name another folder with --results"
        try:
            return Record.model_validate_json(
                read_small(path, most_bytes=_MOST_BYTES, next_step=step)
            )
        except ValidationError as error:
            raise CorralError(str(path), "is no record of `corral tune`", step) from error

    def save(self, record: Record) -> Path:
        """Write a record whole; returns its file. Raises CorralError."""
        path = self.path(record.host, record.instance)
        self._write(path, record.model_dump_json(indent=1) + "\n")
        return path

    def pending(self, host: str, instance: str) -> Pending | None:
        """The block that was asked for and is not here yet; a damaged note counts as none."""
        path = self._pending(host, instance)
        if not path.exists():
            return None
        try:
            return Pending.model_validate_json(
                read_small(path, most_bytes=_MOST_BYTES, next_step=_FREE_SPACE)
            )
        except ValidationError:
            return None

    def expect(self, host: str, instance: str, pending: Pending) -> None:
        """Remember what is asked for. Raises CorralError."""
        self._write(self._pending(host, instance), pending.model_dump_json())

    def forget(self, host: str, instance: str) -> None:
        """Remove the note of a pending block. Raises CorralError."""
        path = self._pending(host, instance)
        with writing(path, next_step=_FREE_SPACE):
            path.unlink(missing_ok=True)

    def _pending(self, host: str, instance: str) -> Path:
        return self.path(host, instance).with_suffix(".pending")

    def _write(self, path: Path, text: str) -> None:
        make_folder(path.parent, next_step=_FREE_SPACE)
        write_atomic(path, text, next_step=_FREE_SPACE)
