"""Tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.text import Text

from corral.answers import ShardCheck
from corral.plan import HostPlan, InstancePlan
from corral.state import HostState
from corral.terminal import Rows, coloured
from corral.verification import Check


def checks_table(results: Mapping[str, list[Check]]) -> Rows:
    """One row a check, by host and instance."""
    table = Rows("host", "instance", "check", "", "detail")
    for host, checks in results.items():
        for c in checks:
            table.add(host, c.instance, c.check, _mark(c.ok), c.detail)
    return table


def rehash_table(results: Mapping[str, Sequence[ShardCheck]]) -> Rows:
    """One row a shard, by host."""
    table = Rows("host", "shard", "", "detail")
    for host, rows in results.items():
        for row in rows:
            table.add(host, row.path, _mark(row.ok), row.detail)
    return table


def status_table(plans: list[HostPlan], states: Mapping[str, HostState | str]) -> Rows:
    """One row an instance."""
    heads = ("host", "instance", "endpoint", "unit", "pid", "since", "VRAM", "generation")
    table = Rows(*heads)
    for plan in plans:
        for instance in plan.instances:
            table.add(
                plan.host, instance.name, instance.endpoint.url, *_row(instance, states[plan.host])
            )
    return table


def _row(instance: InstancePlan, state: HostState | str) -> tuple[str | Text, ...]:
    if isinstance(state, str):
        return coloured(state.splitlines()[0], "red"), "", "", "", ""
    found = state.instances.get(instance.name)
    if found is None:
        return coloured("the host does not tell of it", "red"), "", "", "", ""
    unit = f"{found.active} ({found.sub})"
    colour = "green" if found.active == "active" else "red"
    generation = found.proved_generation or "none"
    if generation != instance.generation:
        generation += f", planned {instance.generation}"
    vram = _vram(instance, state)
    return coloured(unit, colour), str(found.pid or ""), found.since, vram, generation


def _vram(instance: InstancePlan, state: HostState) -> str:
    """What the unit holds, and what was predicted; nothing for a server without GPUs."""
    if not instance.need.gpus:
        return ""
    own = [p for p in state.gpu_host.processes if p.unit == instance.unit]
    held_mib = sum(process.used_mib or 0 for process in own)
    predicted_mib = sum(need.total_mib for need in instance.need.gpus)
    return f"{held_mib:,} of {predicted_mib:,} MiB"


def _mark(ok: bool) -> Text:
    return coloured("ok", "green") if ok else coloured("FAILED", "red")
