"""Verdicts of the fit proof, from the host (files/corral_host/fit/prove.py)."""

from __future__ import annotations

from collections.abc import Sequence

from corral.host.fault import Fault
from corral.plan.placement import DeviceNeed
from corral.schema import Frozen


class Counted(Frozen):
    """Memory that the engine's own program counts for one device, rounded down."""

    weights_mib: int
    kv_mib: int
    compute_mib: int


class DeviceMemory(Frozen):
    """Memory available to an instance on a device, in MiB.

    + free, own: free memory, and memory that the instance itself holds
    + taken: memory that other instances will still allocate; + there: the available sum
    + strangers: processes that are no instances of the host
    """

    free: int
    own: int
    taken: dict[str, int]
    there: int
    strangers: tuple[str, ...]


class Row(Frozen):
    """One device: its counts and their sources; ``tool``: None where it was not run.

    + tool_name: the engine's program that counts
    """

    device: str
    needs_mib: int
    there_mib: int
    counted: DeviceNeed
    tool: Counted | None
    tool_name: str = "the engine"
    plan: DeviceNeed
    room: DeviceMemory

    def line(self) -> str:
        """Needed and available memory, with both counts."""
        needs, available = _gib(self.needs_mib), _gib(max(self.there_mib, 0))
        plan = self.plan
        counts = f"planned {plan.weights_mib} + {plan.kv_mib} + {plan.compute_mib}"
        if self.tool:
            tool = self.tool
            counts = (
                f"{self.tool_name} {tool.weights_mib} + {tool.kv_mib} + {tool.compute_mib}, "
                f"{counts}"
            )
        parts = f"MiB of weights + KV + compute: {counts}; beside them {plan.runtime_mib}"
        return f"{self.device}: {needs} needed, {available} available ({parts})"


class Verdict(Frozen):
    """Whether an instance fits; ``message``: why not and the next step, or empty."""

    instance: str
    ok: bool
    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()
    message: str = ""
    fault: Fault | None = None

    def lines(self) -> list[str]:
        """One line for each device and each note."""
        rows = [f"{self.instance}: {row.line()}" for row in self.rows]
        return rows + [f"{self.instance}: {note}" for note in self.notes]


def refusals(verdicts: Sequence[Verdict], waiting: Sequence[str]) -> list[str]:
    """Reasons why instances do not fit; an instance without a verdict does not fit."""
    judged = {verdict.instance for verdict in verdicts}
    lines = [line for v in verdicts if not v.ok for line in v.message.splitlines()]
    return lines + [f"{name}: its fit was not proved" for name in waiting if name not in judged]


def _gib(mib: int) -> str:
    return f"{mib / 1024:.1f} GiB"
