"""The record of a hard day: one file for all its sittings, of one commit only."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from corral.errors import CorralError
from corral.files import write_atomic
from lab.chaos.operators import By
from lab.layout import ROOM

Kind = Literal["chores", "scenarios", "controls"]
KINDS: tuple[Kind, ...] = ("chores", "scenarios", "controls")
# Appended to a commit whose files were edited since.
_EDITED = " and edits"


@dataclass(frozen=True)
class Setting:
    """What was tested; a record has rows of one setting only.

    ``alerts``: the gateway host watches the fleet
    """

    commit: str
    by: By
    servers: int
    gateway: bool
    alerts: bool


class Record:
    """Rows of each kind; each is written to the file at once."""

    def __init__(self, path: Path, document: dict[str, Any]) -> None:
        self._path, self.document = path, document

    @classmethod
    def begin(cls, path: Path, setting: Setting) -> Record:
        """Start a new record; it replaces an existing file."""
        rows: dict[str, list[Any]] = {kind: [] for kind in KINDS}
        return cls(path, {"setting": asdict(setting), "sittings": [_now()], **rows})

    @classmethod
    def resume(cls, path: Path, setting: Setting) -> Record:
        """Continue an existing record. Raises CorralError if it is of another setting."""
        try:
            document = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            what = f"cannot be continued: {error}"
            raise CorralError(str(path), what, "leave --resume out") from error
        if document["setting"] != asdict(setting):
            what = f"is of {document['setting']}, and this is {asdict(setting)}"
            raise CorralError(str(path), what, "check that commit out, or leave --resume out")
        if setting.commit.endswith(_EDITED):
            what = "is of uncommitted files, which may have changed since"
            raise CorralError(str(path), what, "commit them, and leave --resume out")
        document["sittings"].append(_now())
        return cls(path, document)

    def has(self, kind: Kind, name: str) -> bool:
        """Whether a row of this name exists."""
        return any(row["name"] == name for row in self.document[kind])

    def add(self, kind: Kind, row: Any) -> None:
        """Add a row and write the file."""
        self.document[kind].append(asdict(row))
        write_atomic(self._path, json.dumps(self.document, indent=1) + "\n", next_step=ROOM)

    @property
    def held(self) -> bool:
        """Whether no rule was broken, and every control saw damage."""
        rows = [*self.document["chores"], *self.document["scenarios"]]
        seen = all(row["words"] for row in self.document["controls"])
        return seen and not any(row["wrong"] for row in rows)


def commit_of(checkout: Path) -> str:
    """The checkout's commit, with a mark if files were edited since."""
    edited = _git(checkout, "status", "--porcelain")
    return _git(checkout, "rev-parse", "HEAD") + (_EDITED if edited else "")


def _git(checkout: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=checkout, check=True, capture_output=True, text=True
    )  # fmt: skip
    return done.stdout.strip()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
