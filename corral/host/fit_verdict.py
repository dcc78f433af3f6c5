"""Verdicts on the fit of instances, made on their host (files/corral_host/fit/prove.py)."""

from __future__ import annotations

from collections.abc import Sequence

from corral.host.fault import Fault
from corral.plan.placement import DeviceNeed
from corral.schema import Frozen


class Counted(Frozen):
    """What the engine's own program counts for one device, rounded down."""

    weights_mib: int
    kv_mib: int
    compute_mib: int


class Room(Frozen):
    """What is there on a device: free, held by the instance itself, less what others will take.

    + taken: MiB that other instances still have to take; + strangers: processes of nobody here
    """

    free: int
    own: int
    taken: dict[str, int]
    there: int
    strangers: tuple[str, ...]


class Row(Frozen):
    """One device: what counts, and where that is from; ``tool`` is None where it was not asked.

    + tool_name: the engine's program that counts
    """

    device: str
    needs_mib: int
    there_mib: int
    counted: DeviceNeed
    tool: Counted | None
    tool_name: str = "the engine"
    plan: DeviceNeed
    room: Room

    def line(self) -> str:
        """What is needed and what is there, and the two counts behind it."""
        needs, there = _gib(self.needs_mib), _gib(max(self.there_mib, 0))
        plan = self.plan
        counts = f"planned {plan.weights_mib} + {plan.kv_mib} + {plan.compute_mib}"
        if self.tool:
            tool = self.tool
            counts = (
                f"{self.tool_name} {tool.weights_mib} + {tool.kv_mib} + {tool.compute_mib}, "
                f"{counts}"
            )
        parts = f"MiB of weights + KV + compute: {counts}; beside them {plan.runtime_mib}"
        return f"{self.device}: {needs} needed, {there} is there ({parts})"


class Verdict(Frozen):
    """Whether an instance fits; ``message`` says why not and what to do, or is empty."""

    instance: str
    ok: bool
    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()
    message: str = ""
    fault: Fault | None = None

    def lines(self) -> list[str]:
        """A line for each device and each note."""
        rows = [f"{self.instance}: {row.line()}" for row in self.rows]
        return rows + [f"{self.instance}: {note}" for note in self.notes]


def refusals(verdicts: Sequence[Verdict], waiting: Sequence[str]) -> list[str]:
    """Lines that tell why instances do not fit; one without a verdict does not either."""
    told = {verdict.instance for verdict in verdicts}
    lines = [line for v in verdicts if not v.ok for line in v.message.splitlines()]
    return lines + [f"{name}: its fit was not proved" for name in waiting if name not in told]


def _gib(mib: int) -> str:
    return f"{mib / 1024:.1f} GiB"
