"""`corral history`, `show`, `pin`, `unpin`: past activations, and pinned generations."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import click
from pydantic import TypeAdapter

from corral.cli.documents import Document
from corral.cli.reach import Target, reach, reach_one
from corral.cli.select import inventory_option
from corral.cli.views.instances import gate_table
from corral.errors import CorralError
from corral.host.activation_report import Report, format_report
from corral.host.answers import PINNED, Pinned
from corral.inventory.hosts import Host
from corral.plan.host import HostPlan
from corral.remote.client import installed_helper
from corral.remote.run import on_all
from corral.rollout.activation import history as history_of
from corral.rollout.activation import stored_plan
from corral.rollout.steps import changes
from corral.schema import Frozen
from corral.terminal import Rows, coloured, echo
from corral.terminal import show as show_rows

Pair = tuple[Host, HostPlan]
_HISTORY = Document(
    "history", TypeAdapter(list[Report]), "corral history", about="Past activations, newest first."
)


class Shown(Frozen):
    """An activation, and what its generation changed; + changes: as sentences."""

    report: Report
    changes: tuple[str, ...]


_SHOWN = Document(
    "show",
    TypeAdapter(list[Shown]),
    "corral show",
    about="Why generations were kept or reverted, with what each changed.",
)


@click.command()
@click.argument("names", nargs=-1, metavar="[HOST|INSTANCE|HOST/INSTANCE]...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@inventory_option
def history(names: tuple[str, ...], as_json: bool, inventory: Path | None) -> None:
    """Show past activations, newest first."""
    targets = reach(names, inventory)
    whole = {target.host.name for target in targets if target.whole}
    reports, errors = _reports([target.pair for target in targets], whole)
    if as_json:
        _HISTORY.show(reports)
    else:
        if reports:
            show_rows(_history_table(reports))
        elif not errors:
            echo("nothing was activated here yet")
        known = {t.host.name: t.host.instance_names for t in targets}
        for name in dict.fromkeys(r.name for r in reports if r.instance not in known[r.host]):
            echo(f"{name} is not in the inventory", err=True)
    _end(errors)


@click.command()
@click.argument("name", metavar="GENERATION|HOST/INSTANCE")
@click.option("--log", is_flag=True, help="Include the last log lines of a failed server.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@inventory_option
def show(name: str, log: bool, as_json: bool, inventory: Path | None) -> None:
    """Show why a generation was kept or reverted."""
    by_name = "/" in name
    pairs = [target.pair for target in _selected(name, inventory)]
    reports, errors = _reports(pairs)
    found = _last_of_each([r for r in reports if by_name or (r.to or "").startswith(name)])
    if not found and not errors:
        what = "has no known activation"
        raise CorralError(name, what, "see `corral history HOST`")
    plans = {host.name: (host, plan) for host, plan in pairs}
    shown = [one if log else one.model_copy(update={"log": ""}) for one in found]
    if as_json:
        _SHOWN.show([_shown(report, plans[report.host]) for report in shown])
    else:
        for report in shown:
            _show(report, plans[report.host])
    _end(errors)


@click.command()
@click.argument("name", metavar="HOST/INSTANCE")
@click.argument("generation")
@click.argument("pin_name", metavar="NAME")
@inventory_option
def pin(name: str, generation: str, pin_name: str, inventory: Path | None) -> None:
    """Keep GENERATION and all that it needs under NAME."""
    _named("pin", name, inventory, generation=generation, name=pin_name)
    echo(f"{name}: {generation} is kept as {pin_name}")


@click.command()
@click.argument("name", metavar="HOST/INSTANCE")
@click.argument("pin_name", metavar="NAME")
@inventory_option
def unpin(name: str, pin_name: str, inventory: Path | None) -> None:
    """Remove the pin NAME; a later deploy removes what only it kept."""
    answer = _named("unpin", name, inventory, name=pin_name)
    echo(f"{name}: {answer.unpinned} is no longer kept as {pin_name}")


def _named(command: str, target: str, inventory: Path | None, **arguments: str) -> Pinned:
    host, plan = reach_one(target, inventory).pair
    if len(plan.instances) != 1:
        raise CorralError(target, f"matches {len(plan.instances)} instances", "use HOST/INSTANCE")
    document = {"paths": plan.paths.model_dump(), "instance": plan.instances[0].name, **arguments}
    client = installed_helper(host, plan.paths.helper)
    return client.ask([command], PINNED, json.dumps(document))


def _selected(name: str, inventory: Path | None) -> list[Target]:
    """The target of HOST/INSTANCE; for a generation, all hosts of an inventory."""
    if "/" in name:
        return reach((name,), inventory)
    if inventory is None:
        what = "a search for a generation needs an inventory"
        raise CorralError(name, what, "add -i INVENTORY, or use HOST/INSTANCE")
    return [target for target in reach((), inventory) if target.names]


def _reports(
    pairs: Sequence[Pair], whole: Collection[str] = ()
) -> tuple[list[Report], list[CorralError]]:
    """Reports of the selected instances, and errors of hosts that do not answer.

    + whole: hosts with all their instances, including those that left the inventory
    """
    answers = on_all(lambda pair: reports_of(pair, whole=pair[0].name in whole), pairs)
    errors = [answer for answer in answers if isinstance(answer, CorralError)]
    found = [r for answer in answers if not isinstance(answer, CorralError) for r in answer]
    return sorted(found, key=lambda report: report.at, reverse=True), errors


def reports_of(pair: Pair, *, whole: bool) -> list[Report] | CorralError:
    """Past activations of the selected instances of a host, or why they are unknown."""
    host, plan = pair
    try:
        found = history_of(host, plan)
        return [report for report in found if whole or plan.instance(report.instance)]
    except CorralError as error:
        return error


def _last_of_each(reports: Sequence[Report]) -> list[Report]:
    newest: dict[str, Report] = {}
    for report in reports:
        newest.setdefault(report.name, report)
    return list(newest.values())


def _history_table(reports: Sequence[Report]) -> Rows:
    heads = ("at", "instance", "from", "to", "how", "outcome", "seconds", "gap", "by", "reason")
    table = Rows(*heads)
    for r in reports:
        colour = "green" if r.ok else "red"
        gap = "" if r.gap_seconds is None else f"{r.gap_seconds:.1f} s"
        reason = (r.reason.splitlines() or [""])[0][:80]
        table.add(
            r.at[:19], r.name, r.from_ or "none", r.to or "none", r.how,
            coloured(r.outcome, colour), f"{r.seconds:.0f}", gap, r.by, reason,
        )  # fmt: skip
    return table


def _shown(report: Report, pair: Pair) -> Shown:
    return Shown(report=report, changes=tuple(map(str.strip, _differences(report, pair))))


def _show(report: Report, pair: Pair) -> None:
    echo(f"{report.name} at {report.at} by {report.by}, now serving {report.serving}")
    lines = format_report(report)
    echo("\n".join(f"  {line}" for line in lines))
    times = ", ".join(f"{one.phase} {one.seconds:.1f} s" for one in report.phases)
    echo(f"  phases: {times or 'none'}")
    for line in _differences(report, pair):
        echo(f"  {line}")
    for title, rows in (("gate", report.gate), ("gate of the revert", report.revert_gate)):
        if rows:
            echo(f"  {title}")
            show_rows(gate_table(rows))


def _differences(report: Report, pair: Pair) -> list[str]:
    """Differences between the plans of the previous generation and this one."""
    if report.from_ is None or report.to is None or report.from_ == report.to:
        return []
    try:
        old, new = (
            stored_plan(*pair, report.instance, generation)
            for generation in (report.from_, report.to)
        )
    except CorralError as error:
        return [f"plans: {error.what}"]
    return [f"{report.from_} -> {report.to}", *(f"  {line}" for line in changes(old, new))]


def _end(errors: Sequence[CorralError]) -> None:
    for error in errors:
        echo(error, err=True)
    if errors:
        sys.exit(1)
