"""`corral weights`: weights on hosts, who needs them, and removal of those that nobody needs."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click
from corral_shared.hub import HUGGING_FACE
from corral_shared.names import quoted_path
from corral_shared.text import counted

from corral.bench.job import refuse_other_helper
from corral.cli.documents import Document, by_host, without
from corral.cli.reach import Target, planned, reach
from corral.cli.select import inventory_option
from corral.cli.views.progress import progress_shown
from corral.cli.views.weights import gib, sums, weights_table
from corral.errors import CorralError
from corral.host.answers import (
    ADOPTED_WEIGHTS,
    PRUNED_WEIGHTS,
    WEIGHTS,
    AdoptedWeights,
    HostWeights,
)
from corral.host.reading import as_answer
from corral.inventory.hosts import Host
from corral.lock.lock_file import Lock
from corral.plan.host import HostPlan
from corral.planning.host_paths import host_paths
from corral.planning.load import load_planner
from corral.project import project_root
from corral.remote.client import installed_helper, travelling_helper
from corral.remote.run import on_all
from corral.terminal import console, echo, show

_WEIGHTS = Document(
    "weights",
    by_host(without(HostWeights, plan_known=bool)),
    "corral weights list",
    about="Host -> files of weights and who needs them, or why it does not answer.",
)
# Weights arrive by one job at a time.
_JOB = "fetch"
_HASH_SECONDS = 24 * 3600

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class _HostsFirst(click.Group):
    """A group whose first argument may be a host: then it is `list`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the name of the command in front of hosts and options."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_HostsFirst)
def weights() -> None:
    """Show weights on hosts and who needs them: `corral weights HOST`."""


@weights.command("list")
@click.argument("names", nargs=-1, metavar="[HOST]...")
@json_option
@inventory_option
def list_weights(names: tuple[str, ...], as_json: bool, inventory: Path | None) -> None:
    """List weights by model, quant and folder: size, who needs them, last use."""
    targets = _hosts(names, inventory)
    plans = planned(targets).plans
    answers = on_all(lambda target: _weights(target, plans.get(target.host.name)), targets)
    found = {target.host.name: answer for target, answer in zip(targets, answers, strict=True)}
    seen = {name: one for name, one in found.items() if isinstance(one, HostWeights)}
    if as_json:
        _WEIGHTS.show({name: _plain(one, plans.get(name)) for name, one in found.items()})
    else:
        show(weights_table(seen))
        for name, there in seen.items():
            echo(sums(name, there))
    for name, one in found.items():
        if isinstance(one, CorralError):
            echo(one, err=True)
        elif one.problem:
            echo(f"{name}: {one.problem}. Next: {one.next_step}", err=True)
        if name not in plans:
            echo(f"{name}: its plan could not be had, so what it plans is unknown", err=True)
    bad = any(isinstance(one, CorralError) or one.problem for one in found.values())
    sys.exit(1 if bad or plans.keys() != found.keys() else 0)


@weights.command()
@click.argument("name", metavar="HOST")
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask; required without a terminal.")
@inventory_option
def prune(name: str, dry_run: bool, yes: bool, inventory: Path | None) -> None:
    """Remove weights that no plan, process, or current, previous or pinned generation needs."""
    (target,) = _hosts((name,), inventory)
    made = planned([target])
    if name not in made.plans:
        what = "its plan could not be had, so it is unknown which weights it needs"
        raise CorralError(name, f"{what}; nothing was removed", "fix what is said above")
    plan = made.plans[name]
    found = _weights(target, plan)
    if isinstance(found, CorralError):
        raise found
    if found.problem:
        raise CorralError(name, found.problem, found.next_step)
    doomed = [one for one in found.files if not one.users]
    for one in doomed:
        echo(f"{one.path} ({gib(one.size_bytes)})")
    if not doomed:
        echo(f"{name}: all weights are needed")
        return
    files = counted(len(doomed), "file")
    echo(f"{name}: {files} that nobody needs; {gib(found.unneeded_bytes)} are freed")
    if dry_run:
        return
    if not yes and not sys.stdin.isatty():
        step = f"`corral weights prune {name} -y`"
        raise CorralError("corral weights prune", "there is no terminal to ask on", step)
    if not yes and not click.confirm("Remove them?"):
        echo("nothing was removed")
        sys.exit(1)
    helper = travelling_helper(target.host)
    answer = helper.ask(["prune-weights"], PRUNED_WEIGHTS, plan.to_helper())
    files = counted(len(answer.removed), "file")
    echo(f"{name}: removed {files}, {gib(answer.freed_bytes)} are free again")


@weights.command()
@click.argument("name", metavar="HOST")
@click.argument("folder", metavar="FOLDER")
@click.option("--move", is_flag=True, help="Files that match leave FOLDER.")
@inventory_option
def adopt(name: str, folder: str, move: bool, inventory: Path | None) -> None:
    """Use files of FOLDER, a folder on HOST, in place of downloads.

    Files of any name are hashed, and linked (from another file system: copied) where their sha256
    is that of a file of the lock.
    """
    (target,) = _hosts((name,), inventory)
    made = planned([target])
    if name not in made.plans:
        what = "its plan could not be had, so it is unknown which weights it needs"
        raise CorralError(name, what, "fix what is said above")
    plan = made.plans[name]
    shards = locked_files(load_planner(project_root(), tolerant=True).lock, plan)
    spec = {"paths": plan.paths.model_dump(), "folder": folder, "move": move, "shards": shards}
    answer = _adopt(target.host, plan, spec)
    for one in answer.adopted:
        echo(f"{one.source} is now {one.path}")
    echo(f"{name}: {counted(len(answer.adopted), 'file')} adopted of {answer.files} of their sizes")
    for path in answer.missing:
        echo(f"{path} is planned and still missing; a deploy fetches it")


def locked_files(lock: Lock, plan: HostPlan) -> list[dict[str, Any]]:
    """All files of the lock with their places on a host; ``planned``: its plan needs it."""
    found = {
        shard.path: {**shard.model_dump(mode="json", exclude={"header"}), "planned": True}
        for shard in plan.shards
    }
    for model in lock.models.values():
        for file in (one for files in model.quants.values() for one in files):
            path = f"{plan.paths.models}/{model.repo}/{model.revision}/{file.path}"
            url = f"{HUGGING_FACE}/{model.repo}/resolve/{model.revision}/{quoted_path(file.path)}"
            about = {"size_bytes": file.size_bytes, "sha256": file.sha256}
            found.setdefault(path, {"path": path, "url": url, **about, "planned": False})
    return list(found.values())


def _adopt(host: Host, plan: HostPlan, spec: dict[str, Any]) -> AdoptedWeights:
    """By a job, whose progress is shown; on a host without this helper at once, in silence."""
    try:
        refuse_other_helper(host, plan)
    except CorralError:
        echo(f"{host.name}: hashing; its helper is not installed, so no progress is shown")
        travelling = travelling_helper(host)
        return travelling.ask(["adopt"], ADOPTED_WEIGHTS, json.dumps(spec), seconds=_HASH_SECONDS)
    client = installed_helper(host, plan.paths.helper)
    run = client.start(_JOB, "adopt", spec).run
    with progress_shown(console()) as on_progress:
        status = client.follow(_JOB, on_progress=partial(on_progress, host.name), run=run)
    if not status.ok:
        raise status.wrong.error(host.name, "fix that, then run the same command again")
    return as_answer(ADOPTED_WEIGHTS, status.answer or {}, where=host.name)


def _hosts(names: tuple[str, ...], inventory: Path | None) -> list[Target]:
    """Whole hosts. Raises CorralError for the name of an instance."""
    targets = reach(names, inventory)
    for target in targets:
        if not target.whole:
            what = "weights belong to a host, not to an instance"
            raise CorralError(target.host.name, what, f"name the host {target.host.name}")
    return targets


def _weights(target: Target, plan: HostPlan | None) -> HostWeights | CorralError:
    """What is there; ``plan``: None if it is unknown what is planned."""
    paths = json.dumps({"paths": host_paths(target.host).model_dump()})
    document = plan.to_helper() if plan else paths
    try:
        return travelling_helper(target.host).ask(["weights"], WEIGHTS, document)
    except CorralError as error:
        return error


def _plain(found: HostWeights | CorralError, plan: HostPlan | None) -> Any:
    if isinstance(found, CorralError):
        return str(found)
    return {**found.model_dump(mode="json"), "plan_known": plan is not None}
