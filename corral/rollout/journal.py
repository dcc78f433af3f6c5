"""Journal of a rollout on the controller: its plan, and its results so far."""

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
_FREE_SPACE = "free disk space, then continue with --resume"


class Step(Frozen):
    """One instance that changes. ``from_generation``: None where nothing served before.

    + changes: differences; + how: the host's decision under current conditions
    + estimated_seconds: duration of the last time, else the limit of its gate
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
        """HOST/INSTANCE, as arguments of `corral`."""
        return f"{self.host}/{self.instance}"


class GatewayStep(Frozen):
    """A gateway that changes; ``changes``: differences, as sentences."""

    host: str
    changes: tuple[str, ...]


class Rollout(Frozen):
    """One rollout. ``exit_code``: None until it ended.

    + only: hosts that it is limited to; + begun: steps whose activation was started
    + reports, reverts: in the order of their ends
    + left_out: hosts that are not staged and skipped; + gateways: gateways that change
    + gateways_begun, gateways_switched, gateways_reverted: their progress
    + failure: why it did not converge; + notes: warnings for the operator
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
        """Whether a host reported that it serves the generation of the step."""
        return any(
            report.name == step.name and report.ok and report.to == step.to_generation
            for report in self.reports
        )

    def to_revert(self) -> list[Step]:
        """Steps that are done, not reverted, and have a previous generation.

        From the steps, not the reports: where a generation was kept while the controller was cut
        off, a later report only says that there was nothing to do.
        """
        reverted = {report.name for report in self.reverts if report.ok}
        done = [step for step in self.steps if self.is_done(step) and step.name not in reverted]
        return [s for s in done if s.from_generation not in (None, s.to_generation)]

    def gateways_to_revert(self) -> list[str]:
        """Gateways that were switched and not reverted."""
        return [name for name in self.gateways_switched if name not in self.gateways_reverted]

    def unclear(self) -> list[str]:
        """Started steps and gateways whose current generation is unknown."""
        last = {report.name: report for report in self.reports}
        gateways = [name for name in self.gateways_begun if name not in self.gateways_switched]
        own = [n for n in self.begun if n not in last or last[n].outcome == "revert failed"]
        return own + gateways


def new_id() -> str:
    """A new rollout id; ids sort by time."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def now() -> str:
    """The current time in UTC, for display."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


class Journals:
    """Folders ``<id>/`` with ``rollout.json``, ``page.html`` and the log of pyinfra."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, rollout: str, name: str) -> Path:
        """A file of a rollout; creates its folder. Raises CorralError."""
        folder = self._of(rollout)
        make_folder(folder, mode=0o700, next_step=_FREE_SPACE)
        return folder / name

    def save(self, rollout: Rollout) -> None:
        """Write the journal atomically. Raises CorralError."""
        write_whole(self.path(rollout.id, "rollout.json"), rollout.model_dump_json(indent=2) + "\n")

    def load(self, rollout: str) -> Rollout:
        """The rollout of this id. Raises CorralError."""
        path = self._of(rollout) / "rollout.json"
        step = f"see {self.folder}"
        try:
            stored = Rollout.model_validate_json(path.read_bytes())
        except OSError as error:
            raise CorralError(rollout, f"no such rollout: {error.strerror}", step) from error
        except ValidationError as error:
            raise CorralError(str(path), "is damaged, or of another version", step) from error
        # Later writes use the id in the journal, so it must match.
        if stored.id != rollout:
            raise CorralError(str(path), f"is the journal of {stored.id}", step)
        return stored

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
    """Write a file atomically and durably. Raises CorralError."""
    write_atomic(path, text, next_step=_FREE_SPACE)
