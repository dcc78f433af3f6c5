"""`corral weights`: weights on hosts, who needs them, and removal of those that nobody needs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from corral.cli.reach import Target, planned, reach
from corral.cli.select import inventory_option
from corral.cli.views.weights import gib, sums, weights_table
from corral.errors import CorralError
from corral.host.answers import PRUNED_WEIGHTS, WEIGHTS, HostWeights
from corral.plan.host import HostPlan
from corral.planning.host_paths import host_paths
from corral.remote.client import travelling_helper
from corral.remote.run import on_all
from corral.terminal import echo, echo_json, show

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
        echo_json({name: _plain(one, plans.get(name)) for name, one in found.items()})
    else:
        show(weights_table(seen))
        for name, there in seen.items():
            echo(sums(name, there))
    for name, one in found.items():
        if isinstance(one, CorralError):
            echo(one, err=True)
        elif one.problem:
            echo(f"{name}: {one.problem}", err=True)
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
        raise CorralError(name, *_split(found.problem))
    doomed = [one for one in found.files if not one.users]
    for one in doomed:
        echo(f"{one.path} ({gib(one.size_bytes)})")
    if not doomed:
        echo(f"{name}: all weights are needed")
        return
    echo(f"{name}: nobody needs these {len(doomed)} files; {gib(found.unneeded_bytes)} are freed")
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
    echo(f"{name}: removed {len(answer.removed)} files, {gib(answer.freed_bytes)} are free again")


def _split(problem: str) -> tuple[str, str]:
    what, _, step = problem.partition(". Next: ")
    return what, step


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
