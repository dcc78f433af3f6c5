"""The journal of a rollout on the controller: what was meant, and what came of it so far."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from corral.errors import CorralError
from corral.files import make_folder, write_atomic
from corral.host.activation_report import Report
from corral.names import FileName, safe_file_name
from corral.planning.waves import Wave
from corral.schema import Frozen

OnFailure = Literal["revert", "stop"]
CONVERGED, REVERTED, MIXED = 0, 10, 20
_ROOM = "make room, then go on with --resume"


class Step(Frozen):
    """One instance that changes. ``from_generation`` is None where nothing served before.

    + changes: what is another than before; + how: as the host decides it with the facts of now
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


class GatewayStep(Frozen):
    """A gateway that changes itself. ``changes``: what is another than before, for people."""

    host: str
    changes: tuple[str, ...]


class Rollout(Frozen):
    """One rollout. ``exit_code`` is None until it ended.

    + only: hosts that it was narrowed to; + begun: steps whose activation was asked for
    + reports, reverts: in the order of their ends
    + left_out: hosts that are not staged, and gone on without; + gateways: what changes at them
    + gateways_begun, gateways_switched, gateways_reverted: how far that is
    + failure: why it did not converge; + notes: what else a person should know
    """

    id: FileName
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
    left_out: tuple[str, ...] = ()
    gateways: tuple[GatewayStep, ...] = ()
    gateways_begun: tuple[str, ...] = ()
    gateways_switched: tuple[str, ...] = ()
    gateways_reverted: tuple[str, ...] = ()
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
        """Steps that are done and not reverted, and that have something to go back to.

        By the step and not by the report: of one that was kept while nobody listened a later
        report says only that nothing was to do.
        """
        back = {report.name for report in self.reverts if report.ok}
        done = [step for step in self.steps if self.is_done(step) and step.name not in back]
        return [s for s in done if s.from_generation not in (None, s.to_generation)]

    def gateways_to_revert(self) -> list[str]:
        """Gateways that were switched and not reverted."""
        return [name for name in self.gateways_switched if name not in self.gateways_reverted]

    def unclear(self) -> list[str]:
        """Begun steps, and gateways, of which nobody knows that they are at their old or new."""
        last = {report.name: report for report in self.reports}
        gateways = [name for name in self.gateways_begun if name not in self.gateways_switched]
        own = [n for n in self.begun if n not in last or last[n].outcome == "revert failed"]
        return own + gateways


def new_id() -> str:
    """Sorts by time."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def now() -> str:
    """UTC, for people."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


class Journals:
    """Folders ``<id>/`` with ``rollout.json``, ``page.html`` and the log of pyinfra."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, rollout: str, name: str) -> Path:
        """A file of a rollout; its folder is made. Raises CorralError."""
        folder = self._of(rollout)
        make_folder(folder, mode=0o700, next_step=_ROOM)
        return folder / name

    def save(self, rollout: Rollout) -> None:
        """Write the journal, whole or not at all. Raises CorralError."""
        write_whole(self.path(rollout.id, "rollout.json"), rollout.model_dump_json(indent=2) + "\n")

    def load(self, rollout: str) -> Rollout:
        """The rollout of this id. Raises CorralError."""
        path = self._of(rollout) / "rollout.json"
        step = f"see {self.folder}"
        try:
            found = Rollout.model_validate_json(path.read_bytes())
        except OSError as error:
            raise CorralError(rollout, f"no such rollout: {error.strerror}", step) from error
        except ValidationError as error:
            raise CorralError(str(path), "is damaged, or another version's", step) from error
        # It is saved by its own id.
        if found.id != rollout:
            raise CorralError(str(path), f"is the journal of {found.id}", step)
        return found

    def last(self, inventory: str) -> Rollout | None:
        """The newest rollout of an inventory. Raises CorralError for a damaged one."""
        return next((one for one in self._newest_first() if one.inventory == inventory), None)

    def _newest_first(self) -> Iterator[Rollout]:
        for path in sorted(self.folder.glob("*/rollout.json"), reverse=True):
            yield self.load(path.parent.name)

    def _of(self, rollout: str) -> Path:
        step = f"name one of {self.folder}"
        return self.folder / safe_file_name(rollout, where="rollout", next_step=step)


def write_whole(path: Path, text: str) -> None:
    """Whole or not at all, on the disk before it counts. Raises CorralError."""
    write_atomic(path, text, next_step=_ROOM)
