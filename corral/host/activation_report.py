"""Report of an activation, stored on its host (files/corral_host/activation/activate.py)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from corral.names import FileName, HostName
from corral.schema import Frozen

Outcome = Literal["kept", "reverted", "refused", "revert failed", "unchanged"]


class PhaseTime(Frozen):
    """Duration of one phase of an activation."""

    phase: str
    seconds: float


class Row(Frozen):
    """One part of a gate (files/corral_host/instance/gate_rows.py).

    + ok: None for a part that was skipped after another failed
    """

    part: str
    ok: bool | None
    figure: str
    limit: str
    detail: str


class Report(Frozen):
    """One finished activation. ``from_`` and ``to`` are generations, None where there was none.

    + run: id of the job's run, None from earlier helpers
    + at: UTC, for display; + serving: generation that serves now; + reason: empty when it was kept
    + gap_seconds: time without a server, None where it was not measured; + log: of a failed server
    """

    # A helper of a later version may add keys.
    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    host: HostName
    instance: FileName
    at: str
    by: str = ""
    rollout: str | None = None
    run: str | None = None
    from_: str | None = Field(default=None, alias="from")
    to: str | None
    how: str = ""
    outcome: Outcome
    serving: str | None
    reason: str = ""
    phases: tuple[PhaseTime, ...] = ()
    gate: tuple[Row, ...] = ()
    revert_gate: tuple[Row, ...] = ()
    gap_seconds: float | None = None
    log: str = ""
    boot_id: str = ""

    @property
    def ok(self) -> bool:
        """Whether the host serves the requested generation."""
        return self.outcome in ("kept", "unchanged")

    @property
    def name(self) -> str:
        """HOST/INSTANCE, as arguments of `corral`."""
        return f"{self.host}/{self.instance}"

    @property
    def seconds(self) -> float:
        """Duration of all phases together."""
        return sum(phase.seconds for phase in self.phases)

    def document(self) -> dict[str, Any]:
        """The report as the host writes it."""
        return self.model_dump(mode="json", by_alias=True)


def format_report(report: Report) -> list[str]:
    """A report as lines of text; the first has the outcome."""
    gap = "" if report.gap_seconds is None else f", {report.gap_seconds:.1f} s without a server"
    how = f" ({report.how}{gap})" if report.how not in ("", "none") else ""
    head = f"{report.instance}: {report.to or 'no generation'} {report.outcome}{how}"
    lines = [head, *report.reason.splitlines()]
    if report.log and report.log.strip() not in report.reason:
        lines += ["Its last lines:", *report.log.strip().splitlines()]
    return lines
