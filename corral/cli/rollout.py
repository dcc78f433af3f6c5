"""`corral rollout`: change a fleet wave by wave, and revert it on failure."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from corral_shared.text import counted
from pydantic import TypeAdapter

from corral.cli.documents import Document
from corral.cli.run_rollout import holding, run_course
from corral.cli.times import Duration
from corral.cli.views.diff import rollout_lines
from corral.cli.views.rollout import duration, gateway_table, plan_table, total_seconds
from corral.errors import CorralError
from corral.paths import default_rollouts_folder
from corral.remote.client import current_operator
from corral.rollout.begin import Fleet, Wanted, fleet, orphans, plan, stage, unfinished
from corral.rollout.differences import FleetDiff, RolloutForecast, rollout_forecast
from corral.rollout.health import Health
from corral.rollout.journal import (
    CONVERGED,
    Journals,
    OnFailure,
    Rollout,
    new_id,
    now,
)
from corral.rollout.locks import fleet_lock
from corral.rollout.pruning import prune
from corral.terminal import echo, messages_to_stderr, show

state_option = click.option(
    "--state", "folder", type=click.Path(path_type=Path), default=default_rollouts_folder,
    help="Folder of journals.  [default: ~/.local/state/corral/rollouts]",
)  # fmt: skip


_FORECAST = Document(
    "rollout-dry-run",
    TypeAdapter(RolloutForecast),
    "corral rollout",
    about="What a rollout would do now; with --dry-run.",
)
OUTCOME = Document(
    "rollout",
    TypeAdapter(Rollout),
    "corral rollout",
    "corral revert",
    about="What a rollout did, once it ended; `corral revert` prints it with --rollout.",
)


@click.command()
@click.argument("inventory", type=click.Path(path_type=Path))
@click.option("--limit", "only", multiple=True, metavar="HOST", help="Only this host; repeatable.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask; required without a terminal.")
@click.option("--soak", type=Duration(), help="Time between waves, such as 5m.")
@click.option(
    "--on-failure",
    type=click.Choice(["revert", "stop"]),
    default="revert",
    show_default=True,
    help="Revert changed hosts, or leave them.",
)
@click.option("--without-failed", is_flag=True, help="Skip hosts that are not staged.")
@click.option("--dry-run", is_flag=True, help="Show what it would do; change and stage nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, and messages to stderr.")
@click.option("--resume", is_flag=True, help="Continue the last rollout, which did not end.")
@state_option
def rollout(
    inventory: Path,
    only: tuple[str, ...],
    yes: bool,
    soak: int | None,
    on_failure: OnFailure,
    without_failed: bool,
    dry_run: bool,
    as_json: bool,
    resume: bool,
    folder: Path,
) -> None:
    """Change the hosts of INVENTORY to their plan, wave by wave.

    Stages everything on all hosts first, then shows the plan and asks for approval. Exit code 0:
    converged, 10: all reverted, 20: some hosts serve the new and some the old, 1: not started.
    With --dry-run 0: no change, 2: some changes, 1: a host could not be compared.
    """
    wanted = Wanted(inventory, only, soak, on_failure, without_failed)
    if dry_run:
        if resume:
            what = "a rollout that is resumed was shown already: its journal has its steps"
            raise CorralError("--dry-run --resume", what, "leave one of them out")
        sys.exit(_dry_run(wanted, as_json=as_json))
    if not yes and not _has_terminal():
        raise CorralError("corral rollout", "there is no terminal to ask on", "add -y")
    journals = Journals(folder)
    with (
        messages_to_stderr(when=as_json),
        fleet_lock(folder, inventory, by=current_operator(), since=now()),
    ):
        ended = _resume(wanted, journals) if resume else _run(wanted, journals, ask=not yes)
    if as_json:
        OUTCOME.show(ended)
    sys.exit(ended.exit_code)


def _resume(wanted: Wanted, journals: Journals) -> Rollout:
    begun = unfinished(journals, wanted.inventory, soak_seconds=wanted.soak_seconds)
    found = fleet(Wanted(wanted.inventory, begun.only), echo)
    with holding(found, begun.id) as holds:
        ended = run_course(begun, found, journals, holds)
    return _pruned(found, ended)


def _run(wanted: Wanted, journals: Journals, *, ask: bool) -> Rollout:
    found, name = fleet(wanted, echo), new_id()
    # Hold the locks before staging, so that the shown plan is what will be activated.
    with holding(found, name) as holds:
        planned = _begin(wanted, found, journals, name, ask=ask)
        if planned.exit_code is not None:
            return planned
        ended = run_course(planned, found, journals, holds)
    return _pruned(found, ended)


def _pruned(found: Fleet, ended: Rollout) -> Rollout:
    """Remove what a rollout that converged left unused; returns the rollout."""
    if ended.exit_code == CONVERGED:
        _prune(found, ended)
    return ended


def _prune(found: Fleet, ended: Rollout) -> None:
    changed = {step.host for step in ended.steps}
    for line in prune([pair for pair in found.pairs if pair[0].name in changed]):
        echo(line)


def _dry_run(wanted: Wanted, *, as_json: bool) -> int:
    """Show what the rollout would do. Returns the exit code."""
    found = rollout_forecast(fleet(wanted, echo), wanted.soak_seconds)
    if as_json:
        _FORECAST.show(found)
    else:
        echo("\n".join(rollout_lines(found)))
    return FleetDiff(hosts=found.hosts).exit_code


def _has_terminal() -> bool:
    return sys.stdin.isatty()


def _begin(wanted: Wanted, found: Fleet, journals: Journals, name: str, *, ask: bool) -> Rollout:
    """Stage, show the plan, ask. Exits if the answer is no.

    Where there is nothing to do, the rollout has its exit code already.
    """
    log = journals.path(name, "pyinfra.log")
    echo(f"rollout {name}: staging, log in {log}")
    staged = stage(wanted, found, log, echo, name)
    for line in orphans(staged):
        echo(f"note: {line}", colour="yellow")
    planned = plan(wanted, found, staged, name)
    if not planned.steps and not planned.gateways:
        _verify(found, [member.host.name for member in staged])
        return planned.model_copy(update={"ended_at": now(), "exit_code": CONVERGED})
    if planned.steps:
        show(plan_table(planned))
    if planned.gateways:
        show(gateway_table(planned))
    for note in planned.notes:
        echo(f"note: {note}", colour="yellow")
    instances = counted(len(planned.steps), "instance")
    waves = counted(len(planned.waves), "wave")
    about = duration(total_seconds(planned))
    gateways = f", then {counted(len(planned.gateways), 'gateway')}" if planned.gateways else ""
    echo(f"{instances} in {waves}{gateways}, at most about {about}")
    if ask and not click.confirm("Change them?"):
        echo("nothing was changed; staged generations stay")
        sys.exit(1)
    return planned


def _verify(found: Fleet, staged: list[str]) -> None:
    """Verify what serves its plan already, and say so. Raises CorralError if it is not green."""
    hosts = {host.name: (host, plan) for host, plan in found.pairs}
    names = [f"{name}/{i.name}" for name in staged for i in hosts[name][1].instances]
    left_out = hosts.keys() - set(staged)
    health, gateways = Health(found.checked, found.document), found.verified_gateways(left_out)
    if problems := health.problems(names, gateways=gateways):
        raise CorralError("verification", "; ".join(problems), "run `corral logs HOST/INSTANCE`")
    echo(f"nothing to do: {counted(len(names), 'instance')} verified against the plan")
