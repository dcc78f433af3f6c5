"""Tables for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from corral.answers import ShardCheck
from corral.plan import HostPlan, InstancePlan
from corral.state import HostState
from corral.verification import Check


def show(table: Table) -> None:
    """Print a table; as wide as it needs where there is no terminal."""
    width = None if Console().is_terminal else 200
    # A model's reply is text, not markup with emoji codes.
    Console(width=width, emoji=False, highlight=False).print(table)


def checks_table(results: Mapping[str, list[Check]]) -> Table:
    """One row a check, by host and instance."""
    table = Table("host", "instance", "check", "", "detail", box=None)
    for host, checks in results.items():
        for c in checks:
            table.add_row(host, c.instance, c.check, _mark(c.ok), escape(c.detail))
    return table


def rehash_table(results: Mapping[str, Sequence[ShardCheck]]) -> Table:
    """One row a shard, by host."""
    table = Table("host", "shard", "", "detail", box=None)
    for host, rows in results.items():
        for row in rows:
            table.add_row(host, row.path, _mark(row.ok), escape(row.detail))
    return table


def status_table(plans: list[HostPlan], states: Mapping[str, HostState | str]) -> Table:
    """One row an instance."""
    heads = ("host", "instance", "endpoint", "unit", "pid", "since", "VRAM", "generation")
    table = Table(*heads, box=None)
    for plan in plans:
        for instance in plan.instances:
            table.add_row(
                plan.host, instance.name, instance.endpoint.url, *_row(instance, states[plan.host])
            )
    return table


def _row(instance: InstancePlan, state: HostState | str) -> tuple[str, ...]:
    if isinstance(state, str):
        return f"[red]{escape(state.splitlines()[0])}[/]", "", "", "", ""
    found = state.instances.get(instance.name)
    if found is None:
        return "[red]the host does not tell of it[/]", "", "", "", ""
    unit = f"{found.active} ({found.sub})"
    colour = "green" if found.active == "active" else "red"
    generation = found.proved_generation or "none"
    if generation != instance.generation:
        generation += f", planned {instance.generation}"
    vram = _vram(instance, state)
    return f"[{colour}]{unit}[/]", str(found.pid or ""), found.since, vram, generation


def _vram(instance: InstancePlan, state: HostState) -> str:
    """What the unit holds, and what was predicted; nothing for a server without GPUs."""
    if not instance.need.gpus:
        return ""
    own = [p for p in state.gpu_host.processes if p.unit == instance.unit]
    held_mib = sum(process.used_mib or 0 for process in own)
    predicted_mib = sum(need.total_mib for need in instance.need.gpus)
    return f"{held_mib:,} of {predicted_mib:,} MiB"


def _mark(ok: bool) -> str:
    return "[green]ok[/]" if ok else "[red]FAILED[/]"
