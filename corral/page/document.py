"""The document of a fleet's page: what hosts, journals and a Prometheus say, at one moment.

Nothing is decided here: whether an instance is well, what it should hold and what differs are the
answers of `corral status`, `corral history`, `corral baseline` and `corral drift`.
"""

from __future__ import annotations

import re
from typing import Literal

from corral.host.activation_report import Report
from corral.host.answers import DriftRow, GpuFigures, GpuHolder
from corral.schema import Frozen

# A figure of the gate, as the host writes it (files/corral_host/checks/speed.py).
_SPEED = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?) (.+)")
_CHANGES_SHOWN = 8

Severity = Literal["page", "ticket", ""]


class GpuPage(GpuFigures):
    """A GPU with whoever holds memory of it."""

    holders: tuple[GpuHolder, ...] = ()

    @property
    def used_mib(self) -> int:
        """Of those that report it."""
        return self.memory_used_mib or 0

    @property
    def total_mib(self) -> int:
        """Of those that report it."""
        return self.memory_total_mib or 0

    @property
    def predicted_mib(self) -> int:
        """What its instances were predicted to hold together."""
        return sum(one.predicted_mib or 0 for one in self.holders)


class Speed(Frozen):
    """Tokens/s of the last gate, and the host's baseline; + measure: generation at 512."""

    measure: str
    per_second: float
    baseline_per_second: float | None = None

    @property
    def percent(self) -> float | None:
        """Of the baseline."""
        known = self.baseline_per_second
        return 100 * self.per_second / known if known else None


class InstancePage(Frozen):
    """An instance as its host reports it.

    + is_good: as `corral status` decides it; + problem: why it is not, or empty
    + generation: the one that was proved; + planned_generation: None where it has no plan
    """

    name: str
    is_good: bool
    problem: str = ""
    in_inventory: bool = True
    endpoint: str = ""
    unit: str = ""
    since: str = ""
    model: str = ""
    quant: str = ""
    health: str = ""
    generation: str | None = None
    planned_generation: str | None = None
    vram_mib: int | None = None
    vram_predicted_mib: int | None = None
    speeds: tuple[Speed, ...] = ()


class HostPage(Frozen):
    """A host; ``problem``: why it does not answer, or empty.

    + history: past activations, newest first; + drift: None where it is unknown
    + unknown: parts that could not be read, and why
    """

    name: str
    problem: str = ""
    instances: tuple[InstancePage, ...] = ()
    gpus: tuple[GpuPage, ...] = ()
    gpu_problem: str = ""
    history: tuple[Report, ...] = ()
    drift: tuple[DriftRow, ...] | None = None
    unknown: tuple[str, ...] = ()

    @property
    def drift_count(self) -> int:
        """Rows of drift."""
        return len(self.drift or ())

    @property
    def is_good(self) -> bool:
        """Whether it answers and all of it is well; drift is shown on its own."""
        return not (self.problem or self.gpu_problem or self.unknown) and all(
            one.is_good for one in self.instances
        )


class WavePage(Frozen):
    """A wave of a rollout, with the number of its instances and of those that are done."""

    name: str
    hosts: tuple[str, ...]
    instances: int
    done: int


class RolloutPage(Frozen):
    """A rollout that has not ended, by its journal on this controller."""

    id: str
    inventory: str
    by: str
    began_at: str
    waves: tuple[WavePage, ...]
    failure: str = ""

    @property
    def instances(self) -> int:
        """All instances that change."""
        return sum(wave.instances for wave in self.waves)

    @property
    def done(self) -> int:
        """Those that serve their new generation."""
        return sum(wave.done for wave in self.waves)


class AlertPage(Frozen):
    """Something that a person acts on; ``command``: what to type, or empty."""

    name: str
    where: str
    what: str
    command: str = ""
    severity: Severity = ""
    since: str = ""


class FleetPage(Frozen):
    """A fleet at one moment.

    + alerts_from: address that they come from; empty: from what hosts say
    + alerts_problem: why that address does not answer, or empty
    """

    made_at: str
    hosts: tuple[HostPage, ...]
    rollouts: tuple[RolloutPage, ...] = ()
    alerts: tuple[AlertPage, ...] = ()
    alerts_from: str = ""
    alerts_problem: str = ""

    @property
    def instances(self) -> tuple[InstancePage, ...]:
        """Of all hosts."""
        return tuple(one for host in self.hosts for one in host.instances)

    @property
    def gpus(self) -> tuple[GpuPage, ...]:
        """Of all hosts."""
        return tuple(one for host in self.hosts for one in host.gpus)

    @property
    def changes(self) -> tuple[Report, ...]:
        """The last activations of all hosts, newest first."""
        found = [report for host in self.hosts for report in host.history]
        return tuple(sorted(found, key=lambda one: one.at, reverse=True)[:_CHANGES_SHOWN])

    @property
    def is_good(self) -> bool:
        """Whether every host is well and nothing asks for a person."""
        return all(one.is_good for one in self.hosts) and not (self.alerts or self.alerts_problem)


def gate_speeds(report: Report) -> dict[str, float]:
    """Measure -> tokens/s that the gate of an activation measured."""
    rows = [row for row in report.gate if row.part == "speed"]
    parts = [part for row in rows for part in row.figure.removesuffix(" tokens/s").split(", ")]
    return {found[2]: float(found[1]) for part in parts if (found := _SPEED.fullmatch(part))}
