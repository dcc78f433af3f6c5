"""Tables of instances and checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text

from corral.host.activation_report import Row
from corral.host.answers import ObservedInstance, ShardCheck
from corral.host.checks import Check
from corral.plan.instance import InstancePlan
from corral.terminal import Rows, coloured, plain

_GATE_MARKS = {True: coloured("ok", "green"), False: coloured("FAILED", "red"), None: plain("-")}


def checks_table(results: Mapping[str, list[Check]]) -> Rows:
    """One row for each check, by host and instance."""
    table = Rows("host", "instance", "check", "", "detail")
    for host, checks in results.items():
        for c in checks:
            detail = short(c.detail) if c.check == "reach" else c.detail
            table.add(host, c.instance, c.check, _mark(c.ok), detail)
    return table


def gate_table(rows: Sequence[Row]) -> Rows:
    """One row for each part of a gate, in order."""
    table = Rows("part", "", "figure", "limit", "detail")
    for row in rows:
        table.add(row.part, _GATE_MARKS[row.ok], row.figure, row.limit, row.detail)
    return table


def rehash_table(results: Mapping[str, Sequence[ShardCheck]]) -> Rows:
    """One row for each shard, by host."""
    table = Rows("host", "shard", "", "detail")
    for host, rows in results.items():
        for row in rows:
            table.add(host, row.path, _mark(row.ok), row.detail)
    return table


_SHORT = 60


@dataclass(frozen=True)
class Standing:
    """An instance as observed on its host, and its plan.

    + is_asked: it is selected, else it is another one on the host
    + answer: the observed instance; None where the host has none; text: why there is no answer
    + plan: None where it cannot be planned; + is_orphan: it left the inventory
    """

    host: str
    name: str
    is_selected: bool
    answer: ObservedInstance | str | None
    plan: InstancePlan | None
    is_orphan: bool = False

    @property
    def is_good(self) -> bool:
        """Whether the planned generation runs, proved and healthy, at its planned endpoint."""
        found, plan = self.answer, self.plan
        if plan is None or found is None or isinstance(found, str):
            return False
        generations = {found.proved_generation, found.running_generation}
        return (
            found.active == "active"
            and found.health == "ok"
            and not found.watch
            and not found.weights_problem
            and generations == {plan.generation}
            and found.listening == (plan.endpoint.url,)
        )

    @property
    def problem(self) -> str:
        """Why it is not good, as one line; empty where it is."""
        if self.is_good:
            return ""
        found, plan = self.answer, self.plan
        if self.is_orphan:
            return "not in the inventory"
        if isinstance(found, str):
            return short(found)
        if found is None:
            return "not deployed on the host"
        if found.watch or found.weights_problem:
            return found.watch or found.weights_problem
        if found.active != "active":
            return f"its unit is {found.active} ({found.sub})"
        if found.health != "ok":
            return f"its health is {found.health or 'unknown'}"
        return "it does not run its plan" if plan else "its plan is unknown"


def status_table(standings: Sequence[Standing]) -> Rows:
    """One row for each instance, with planned values where they differ."""
    heads = ("host", "instance", "endpoint", "unit", "pid", "since", "model", "health", "VRAM",
             "generation")  # fmt: skip
    table = Rows(*heads)
    for standing in standings:
        table.add(standing.host, standing.name, *_row(standing))
    return table


def _row(standing: Standing) -> tuple[str | Text, ...]:
    found, plan = standing.answer, standing.plan
    if isinstance(found, str):
        return (coloured(short(found), "red"),)
    if found is None:
        return (coloured("not deployed on the host", "red"),)
    unit = f"{found.active} ({found.sub})"
    runs = found.active == "active"
    generation = found.proved_generation or "none"
    if found.pid and found.running_generation != found.proved_generation:
        generation += f", runs {found.running_generation or 'an unknown generation'}"
    served = f"{found.model} {found.quant}".strip() or ("unknown" if found.pid else "none")
    where = ", ".join(found.listening) or "none"
    if plan:
        generation += _unless(plan.generation, found.proved_generation)
        served += _unless(f"{plan.model} {plan.quant}", served) if found.pid else ""
        where += _unless(plan.endpoint.url, where) if found.pid else ""
    elif standing.is_orphan:
        generation += ", not in the inventory"
    else:
        generation += ", plan unknown"
    return (
        where,
        coloured(unit, "green" if runs else "red"),
        str(found.pid or ""),
        found.since,
        served,
        _health(found),
        _vram(found, plan),
        generation,
    )


def _health(found: ObservedInstance) -> Text:
    """Its answer; what is wrong with it beside that comes first."""
    if found.watch:
        return coloured(found.watch, "red")
    return coloured(found.health or "none", "green" if found.health == "ok" else "red")


def short(reason: str) -> str:
    """The beginning of a reason; the full text is printed below the table."""
    first, *more = reason.splitlines() or [""]
    return f"{first[:_SHORT]} ..." if more or len(first) > _SHORT else first


def _unless(planned: str, found: str | None) -> str:
    return "" if planned == found else f", planned {planned}"


def _vram(found: ObservedInstance, plan: InstancePlan | None) -> str:
    """VRAM of the unit and the predicted need; empty for a server without GPUs."""
    if plan is None or not plan.need.gpus:
        return "" if found.vram_mib is None else f"{found.vram_mib:,} MiB"
    predicted_mib = sum(need.total_mib for need in plan.need.gpus)
    return f"{found.vram_mib or 0:,} of {predicted_mib:,} MiB"


def _mark(ok: bool) -> Text:
    return coloured("ok", "green") if ok else coloured("FAILED", "red")
