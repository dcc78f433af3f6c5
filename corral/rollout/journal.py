"""The journal of a rollout on the controller: what was meant, and what came of it so far."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from corral.errors import CorralError
from corral.reports import Report
from corral.schema import Frozen
from corral.waves import Wave

OnFailure = Literal["revert", "stop"]
CONVERGED, REVERTED, MIXED = 0, 10, 20


class Step(Frozen):
    """One instance that changes. ``from_generation`` is None where nothing served before.

    + changes: what is another than before; + how: in place or side by side, as far as is known
    + estimated_seconds: as long as last time, else the limit of its gate
    """

    host: str
    instance: str
    from_generation: str | None
    to_generation: str
    changes: tuple[str, ...] = ()
    how: str
    estimated_seconds: int

    @property
    def name(self) -> str:
        """As `corral` takes it."""
        return f"{self.host}/{self.instance}"


class Rollout(Frozen):
    """One rollout. ``exit_code`` is None until it ended.

    + only: hosts that it was narrowed to; + begun: steps whose activation was asked for
    + reports, reverts: in the order of their ends
    + failure: why it did not converge; + notes: what else a person should know
    """

    id: str
    inventory: str
    by: str
    began_at: str
    ended_at: str | None = None
    only: tuple[str, ...] = ()
    soak_seconds: int
    on_failure: OnFailure
    waves: tuple[Wave, ...]
    steps: tuple[Step, ...]
    begun: tuple[str, ...] = ()
    reports: tuple[Report, ...] = ()
    reverts: tuple[Report, ...] = ()
    failure: str = ""
    notes: tuple[str, ...] = ()
    exit_code: int | None = None

    def is_done(self, step: Step) -> bool:
        """Whether a host said that it serves what the step wants."""
        return any(
            report.name == step.name and report.ok and report.to == step.to_generation
            for report in self.reports
        )

    def to_take_back(self) -> list[Step]:
        """Steps that are done and not taken back, and that have something to go back to.

        By the step and not by the report: of one that was kept while nobody listened a later
        report says only that nothing was to do.
        """
        back = {report.name for report in self.reverts if report.ok}
        done = [step for step in self.steps if self.is_done(step) and step.name not in back]
        return [s for s in done if s.from_generation not in (None, s.to_generation)]

    def unclear(self) -> list[str]:
        """Begun steps of which nobody knows that they serve their old or new generation."""
        last = {report.name: report for report in self.reports}
        return [n for n in self.begun if n not in last or last[n].outcome == "revert failed"]


def new_id() -> str:
    """Sorts by time."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def now() -> str:
    """UTC, for people."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def default_state_folder() -> Path:
    """Below XDG_STATE_HOME, else below ``~/.local/state``."""
    named = Path(os.environ.get("XDG_STATE_HOME", ""))
    state = named if named.is_absolute() else Path.home() / ".local" / "state"
    return state / "corral" / "rollouts"


class Journals:
    """Folders ``<id>/`` with ``rollout.json``, ``page.html`` and the log of pyinfra."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, rollout: str, name: str) -> Path:
        """A file of a rollout; its folder is made."""
        folder = self.folder / rollout
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder / name

    def save(self, rollout: Rollout) -> None:
        """Write the journal, whole or not at all. Raises CorralError."""
        write_whole(self.path(rollout.id, "rollout.json"), rollout.model_dump_json(indent=2) + "\n")

    def load(self, rollout: str) -> Rollout:
        """The rollout of this id. Raises CorralError."""
        path = self.folder / rollout / "rollout.json"
        step = f"see {self.folder}"
        try:
            return Rollout.model_validate_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise CorralError(rollout, f"no such rollout: {error.strerror}", step) from error
        except (ValidationError, UnicodeDecodeError) as error:
            raise CorralError(str(path), "is damaged, or another version's", step) from error

    def last(self, inventory: str) -> Rollout | None:
        """The newest rollout of an inventory. Raises CorralError for a damaged one."""
        return next((one for one in self._newest_first() if one.inventory == inventory), None)

    def _newest_first(self) -> Iterator[Rollout]:
        for path in sorted(self.folder.glob("*/rollout.json"), reverse=True):
            yield self.load(path.parent.name)


def write_whole(path: Path, text: str) -> None:
    """Whole or not at all, on the disk before it counts. Raises CorralError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        what = f"cannot be written: {error.strerror}"
        raise CorralError(str(path), what, "make room, then go on with --resume") from error
