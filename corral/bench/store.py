"""Results on the controller: one JSON file each, by host and instance."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from corral.bench.result import Result
from corral.errors import CorralError
from corral.schema import Frozen, did_you_mean


class Pending(Frozen):
    """A benchmark that was asked for and whose result is not here yet.

    + spec_sha256: of what was asked; + before: when the last result that the host had began
    """

    spec_sha256: str
    before: str | None


def default_results_folder() -> Path:
    """Below XDG_DATA_HOME, else below ``~/.local/share``."""
    # Relative paths there are to be ignored (XDG Base Directory Specification 0.8).
    named = Path(os.environ.get("XDG_DATA_HOME", ""))
    data = named if named.is_absolute() else Path.home() / ".local" / "share"
    return data / "corral" / "bench"


class ResultStore:
    """Files ``<host>/<instance>/<time>.json`` below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, result: Result) -> Path:
        """Keep a result; gives its file. Raises CorralError when it cannot be written."""
        time = result.began_at.replace(":", "")
        path = self.folder / result.host / result.instance / f"{time}.json"
        _write(path, result.model_dump_json(indent=2) + "\n")
        return path

    def results(self) -> Iterator[Result]:
        """All of them, oldest first for each instance. Raises CorralError for a damaged one."""
        for path in sorted(self.folder.glob("*/*/[0-9]*.json")):
            yield load(path)

    def find(self, reference: str) -> Result:
        """A file, or the newest of HOST/INSTANCE or HOST/INSTANCE@RELEASE. Raises CorralError."""
        if reference.endswith(".json"):
            return load(Path(reference))
        # Not at its beginning: pyinfra's name for the machine itself is @local.
        at = reference.find("@", 1)
        name, release = (reference, "") if at < 0 else (reference[:at], reference[at + 1 :])
        of_name = [load(path) for path in sorted(self.folder.glob(f"{name}/[0-9]*.json"))]
        if not of_name:
            what = f"no results are kept{did_you_mean(name, self._names())}"
            raise CorralError(reference, what, f"run `corral bench {name}`, or give a file")
        found = [result for result in of_name if result.release.startswith(release)]
        if not found:
            hint = did_you_mean(release, {result.release for result in of_name})
            step = "see `corral bench list`"
            raise CorralError(reference, f"no result of release {release}{hint}", step)
        return found[-1]

    def _names(self) -> set[str]:
        found = self.folder.glob("*/*/[0-9]*.json")
        return {f"{path.parent.parent.name}/{path.parent.name}" for path in found}

    def pending(self, host: str, instance: str) -> Pending | None:
        """What was asked for last and is not here yet."""
        path = self._pending(host, instance)
        return Pending.model_validate_json(path.read_text()) if path.exists() else None

    def expect(self, host: str, instance: str, pending: Pending) -> None:
        """Remember what is asked for, so that a later command can fetch it."""
        _write(self._pending(host, instance), pending.model_dump_json())

    def forget(self, host: str, instance: str) -> None:
        """Nothing is waited for any more."""
        self._pending(host, instance).unlink(missing_ok=True)

    def _pending(self, host: str, instance: str) -> Path:
        return self.folder / host / instance / "pending.json"


def load(path: Path) -> Result:
    """Read a result. Raises CorralError."""
    try:
        return Result.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        step = "see `corral bench list`"
        raise CorralError(str(path), f"cannot be read: {error.strerror}", step) from error
    except (ValidationError, UnicodeDecodeError) as error:
        raise CorralError(
            str(path), "is no result of `corral bench`", "remove it, or name another"
        ) from error


def _write(path: Path, text: str) -> None:
    """Whole or not at all. Raises CorralError."""
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        step = "make room, or give another folder with --results, then ask again"
        raise CorralError(str(path), what, step) from error
