"""The page of a fleet as tables of a terminal."""

from __future__ import annotations

from corral_shared.text import counted
from rich.console import Group, RenderableType
from rich.text import Text

from corral.page.document import FleetPage, GpuPage, HostPage, InstancePage, Speed
from corral.terminal import Rows, coloured, plain

_BAR_CELLS = 24


def fleet_view(page: FleetPage) -> Group:
    """Alerts, rollouts, instances and GPUs, in the order in which a person needs them."""
    parts: list[RenderableType] = [_head(page)]
    if page.alerts_problem:
        parts.append(coloured(page.alerts_problem, "red"))
    for one in page.alerts:
        alert = coloured(f"{one.name}: ", "red" if one.severity == "page" else "yellow")
        parts.append(alert + plain(f"{one.where} {one.what}. Next: `{one.command}`"))
    for rollout in page.rollouts:
        done = f"{rollout.done} of {counted(rollout.instances, 'instance')}"
        parts.append(coloured(f"rollout {rollout.id} has not ended: {done}", "yellow"))
    parts += [plain(""), _instances(page)]
    if page.gpus:
        parts += [plain(""), _gpus(page)]
    if page.changes:
        parts += [plain(""), _changes(page)]
    return Group(*parts)


def memory_bar(gpu: GpuPage) -> Text:
    """Held memory, then what was predicted beyond it, of the whole."""
    held, predicted = (_cells(mib, gpu.total_mib) for mib in (gpu.used_mib, gpu.predicted_mib))
    beyond = max(predicted - held, 0)
    colour = "red" if gpu.predicted_mib and gpu.used_mib > gpu.predicted_mib else "blue"
    rest = "." * (_BAR_CELLS - held - beyond)
    return coloured("#" * held, colour) + coloured("=" * beyond, "cyan") + plain(rest, "dim")


def _head(page: FleetPage) -> Text:
    hosts, instances = page.hosts, page.instances
    well = f"{sum(one.is_good for one in hosts)} of {counted(len(hosts), 'host')} well"
    served = (
        f"{sum(one.is_good for one in instances)} of {counted(len(instances), 'instance')} well"
    )
    state = coloured("well", "green") if page.is_good else coloured("needs a look", "red")
    return plain(f"{page.made_at}  {well}, {served}  ") + state


def _instances(page: FleetPage) -> Rows:
    table = Rows("host", "instance", "state", "model", "tokens/s", "VRAM", "generation", "drift")
    for host in page.hosts:
        drift = "unknown" if host.drift is None else str(host.drift_count or "none")
        if host.problem:
            table.add(host.name, "", coloured(host.problem.splitlines()[0], "red"))
        for one in host.instances:
            table.add(host.name, one.name, *_row(one), drift)
        if not host.instances and not host.problem:
            table.add(host.name, "none", _state(host), "", "", "", "", drift)
    return table


def _state(host: HostPage) -> Text:
    return coloured("well", "green") if host.is_good else coloured("needs a look", "red")


def _row(one: InstancePage) -> tuple[str | Text, ...]:
    state = coloured("well", "green") if one.is_good else coloured(one.problem, "red")
    held = "" if one.vram_mib is None else f"{one.vram_mib:,}"
    of = "" if one.vram_predicted_mib is None else f" of {one.vram_predicted_mib:,}"
    vram = f"{held}{of} MiB" if held else ""
    speeds = "\n".join(map(_speed, one.speeds))
    return state, f"{one.model} {one.quant}".strip(), speeds, vram, one.generation or "none"


def _speed(one: Speed) -> str:
    share = "" if one.percent is None else f" ({one.percent:.0f} % of the baseline)"
    return f"{one.per_second:.1f} {one.measure}{share}"


def _gpus(page: FleetPage) -> Rows:
    table = Rows("host", "GPU", "memory: # held, = predicted", "MiB", "use", "temperature")
    for host in page.hosts:
        for gpu in host.gpus:
            use, warm = gpu.utilization_percent, gpu.temperature_celsius
            table.add(
                host.name, f"{gpu.index} {gpu.name or ''}", memory_bar(gpu),
                f"{gpu.used_mib:,} of {gpu.total_mib:,}", "" if use is None else f"{use} %",
                "" if warm is None else f"{warm} C",
            )  # fmt: skip
    return table


def _changes(page: FleetPage) -> Rows:
    table = Rows("last changes", "instance", "to", "outcome", "by", "reason")
    for one in page.changes:
        outcome = coloured(one.outcome, "green" if one.ok else "red")
        reason = (one.reason.splitlines() or [""])[0][:60]
        table.add(one.at[:19], one.name, one.to or "none", outcome, one.by, reason)
    return table


def _cells(mib: int, whole_mib: int) -> int:
    return min(round(_BAR_CELLS * mib / whole_mib), _BAR_CELLS) if whole_mib else 0
