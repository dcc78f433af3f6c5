"""Store of results on the controller: one JSON file each, by host and instance."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from corral_shared.names import file_name_problem
from pydantic import TypeAdapter, ValidationError

from corral.bench.load.result import LoadResult
from corral.bench.result import Result
from corral.errors import CorralError
from corral.files import make_folder, read_small, write_atomic, writing
from corral.names import safe_file_name, safe_host_name
from corral.schema import Frozen, did_you_mean

Stored = Result | LoadResult
_STORED: TypeAdapter[Stored] = TypeAdapter(Stored)
_MOST_BYTES = 64 * 1024**2
T = TypeVar("T", Result, LoadResult)

_FREE_SPACE = (
    "free disk space, or name another folder with --results, then run the same command again"
)


class Pending(Frozen):
    """A benchmark that was asked for and whose result is not here yet.

    + spec_sha256: of what was asked; + before: when the last result that the host had began
    """

    spec_sha256: str
    before: str | None


class ResultStore:
    """Files ``<host>/<instance>/<time>.json`` below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, result: Stored) -> Path:
        """Store a result; returns its file. Raises CorralError when it cannot be written."""
        time = result.began_at.replace(":", "")
        path = self._of(result.host, result.instance) / f"{time}.json"
        _write(path, result.model_dump_json(indent=2) + "\n")
        return path

    def results(self) -> Iterator[Stored]:
        """All results, oldest first for each instance. Raises CorralError for a damaged one."""
        for path in sorted(self.folder.glob("*/*/[0-9]*.json")):
            yield load(path)

    def find(self, reference: str) -> Result:
        """A benchmark: a file, or the newest of HOST/INSTANCE or HOST/INSTANCE@RELEASE.

        Raises CorralError.
        """
        return self._find(reference, Result, "")

    def find_load(self, reference: str) -> LoadResult:
        """A load test, named likewise. Raises CorralError."""
        return self._find(reference, LoadResult, " --load")

    def is_load(self, reference: str) -> bool:
        """Whether a reference is a file with a load test. Raises CorralError."""
        return reference.endswith(".json") and isinstance(load(Path(reference)), LoadResult)

    def _find(self, reference: str, shape: type[T], option: str) -> T:
        if reference.endswith(".json"):
            found = load(Path(reference))
            if not isinstance(found, shape):
                what = "is a benchmark" if option else "is a load test"
                step = "compare two results of the same kind, see `corral bench list`"
                raise CorralError(reference, what, step)
            return found
        # Not at its beginning: pyinfra's name for the machine itself is @local.
        at = reference.find("@", 1)
        name, release = (reference, "") if at < 0 else (reference[:at], reference[at + 1 :])
        kept = [load(path) for path in sorted(self._files_of(name))]
        of_name = [result for result in kept if isinstance(result, shape)]
        if not of_name:
            # Other results of the name are no near miss.
            hint = "" if kept else did_you_mean(name, self._names())
            kind = "load tests" if option else "results"
            step = f"run `corral bench {name}{option}`, or give a file"
            raise CorralError(reference, f"no {kind} are kept{hint}", step)
        of_release = [result for result in of_name if result.release.startswith(release)]
        if not of_release:
            hint = did_you_mean(release, {result.release for result in of_name})
            step = "see `corral bench list`"
            raise CorralError(reference, f"no result of release {release}{hint}", step)
        return of_release[-1]

    def _names(self) -> set[str]:
        found = self.folder.glob("*/*/[0-9]*.json")
        return {f"{path.parent.parent.name}/{path.parent.name}" for path in found}

    def _files_of(self, name: str) -> Iterator[Path]:
        """Results of HOST/INSTANCE; nothing outside of the folder has such a name."""
        host, _, instance = name.partition("/")
        if file_name_problem(host) or file_name_problem(instance):
            return iter(())
        return (self.folder / host / instance).glob("[0-9]*.json")

    def pending(self, host: str, instance: str) -> Pending | None:
        """What was asked for last and is not here yet; a damaged note counts as none."""
        path = self._pending(host, instance)
        if not path.exists():
            return None
        try:
            return Pending.model_validate_json(_read(path))
        except ValidationError:
            return None

    def expect(self, host: str, instance: str, pending: Pending) -> None:
        """Remember what is asked for, so that a later command can fetch it. Raises CorralError."""
        _write(self._pending(host, instance), pending.model_dump_json())

    def forget(self, host: str, instance: str) -> None:
        """Remove the note of a pending result. Raises CorralError."""
        path = self._pending(host, instance)
        with writing(path, next_step=_FREE_SPACE):
            path.unlink(missing_ok=True)

    def _pending(self, host: str, instance: str) -> Path:
        return self._of(host, instance) / "pending.json"

    def _of(self, host: str, instance: str) -> Path:
        next_step = "rename it in the inventory"
        safe_host_name(host, where="results", next_step=next_step)
        safe_file_name(instance, where="results", next_step=next_step)
        return self.folder / host / instance


def load(path: Path) -> Stored:
    """Read a result. Raises CorralError."""
    try:
        return _STORED.validate_json(_read(path))
    except ValidationError as error:
        raise CorralError(
            str(path), "is no result of `corral bench`", "remove it, or name another"
        ) from error


def _read(path: Path) -> bytes:
    return read_small(path, most_bytes=_MOST_BYTES, next_step="see `corral bench list`")


def _write(path: Path, text: str) -> None:
    """Write a file atomically. Raises CorralError."""
    make_folder(path.parent, next_step=_FREE_SPACE)
    write_atomic(path, text, next_step=_FREE_SPACE)
