"""`corral tune`: find the best settings of an instance on its host, and write them as overrides."""

from __future__ import annotations

import difflib
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
from pydantic import TypeAdapter

from corral.bench.load.workload import MOST_CONCURRENCY, MOST_TOKENS
from corral.bench.plot import refuse_plot
from corral.bench.tune.gains import OBJECTIVES
from corral.bench.tune.plot import plot_front
from corral.bench.tune.record import Requests
from corral.bench.tune.run import Outcome, Tune, decided, run
from corral.bench.tune.search import Rules
from corral.bench.tune.space import Space, Subject, dimensions_of, machine_of
from corral.bench.tune.store import TuneStore
from corral.catalog.profile import Profile
from corral.cli.documents import Document, rows_of
from corral.cli.fronts import force_option, fronts, limit_seconds, refuse_last
from corral.cli.measured import with_neighbours
from corral.cli.reach import Target, planned, reach_one
from corral.cli.select import inventory_option
from corral.cli.times import Duration
from corral.cli.views.tune import (
    goal_option,
    outcome_table,
    space_table,
    trade_lines,
    verdict_line,
)
from corral.errors import CorralError
from corral.files import write_atomic
from corral.host.answers import GPUS
from corral.host.state import GpuHost
from corral.inventory.hosts import Host
from corral.inventory.overrides import with_overrides
from corral.paths import default_tune_folder
from corral.plan.host import HostPlan
from corral.plan.instance import InstancePlan
from corral.planning.load import load_planner
from corral.project import project_root
from corral.remote.client import travelling_helper
from corral.terminal import echo, echo_file, show

_TUNED = Document(
    "tune", TypeAdapter(Outcome), "corral tune", about="The best settings of an instance."
)
_SUBJECTS = Document(
    "tune-list",
    rows_of(Subject),
    "corral tune",
    about="What would be tried; with --list. ``impossible``: why a value cannot run.",
)
_GOALS = {goal_option(one): one for one in OBJECTIVES}
_LEAST_SECONDS = 60
_ANSWER_TOKENS = 128
# A quarter, and three quarters, of the context of a slot.
_DEPTHS = (0.25, 0.75)


@click.command()
@click.argument("name", metavar="INSTANCE|HOST/INSTANCE")
@click.option("--list", "only_list", is_flag=True, help="Show what would be tried, alone.")
@click.option(
    "--only", multiple=True, metavar="SUBJECT", help="Of those that --list shows; repeatable."
)
@click.option(
    "--goal",
    type=click.Choice(list(_GOALS)),
    default="answer",
    show_default=True,
    help="Answer tokens/s, prompt tokens/s, or the time to the first token at the load.",
)
@click.option(
    "--may-lose",
    type=click.FloatRange(0, 90),
    default=10,
    show_default=True,
    help="Per cent of the other two that a better setting may cost.",
)
@click.option(
    "--budget",
    type=Duration(_LEAST_SECONDS),
    default="1h",
    show_default=True,
    help="Time for measuring; the same command goes on later.",
)
@click.option(
    "--window/--beside",
    default=False,
    help="Stop the server meanwhile, or measure beside it where memory allows (default).",
)
@force_option
@click.option(
    "--prompt-tokens",
    metavar="N,...",
    help="Tokens of prompts.  [default: a quarter and three quarters of a slot]",
)
@click.option(
    "--answer-tokens",
    type=click.IntRange(2, MOST_TOKENS),
    help=f"Tokens of answers.  [default: {_ANSWER_TOKENS}, or an eighth of a slot]",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, MOST_CONCURRENCY),
    help="Requests at once, for the time to the first token.  [default: slots]",
)
@click.option("--repeat", type=click.IntRange(1, 100), default=1, help="Requests of each length.")
@click.option("--apply", "applies", is_flag=True, help="Write the better setting as overrides.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--plot", "picture", type=click.Path(path_type=Path), help="Draw to FILE.png or FILE.svg."
)
@click.option(
    "--results",
    "folder",
    type=click.Path(path_type=Path),
    default=default_tune_folder,
    help="Folder of all runs.  [default: ~/.local/share/corral/tune]",
)
@inventory_option
def tune(
    name: str,
    only_list: bool,
    only: tuple[str, ...],
    goal: str,
    may_lose: float,
    budget: int,
    window: bool,
    force: bool,
    prompt_tokens: str | None,
    answer_tokens: int | None,
    concurrency: int | None,
    repeat: int,
    applies: bool,
    as_json: bool,
    picture: Path | None,
    folder: Path,
    inventory: Path | None,
) -> None:
    """Find the best settings of an instance on its host: placement, batches, threads and more.

    Only what fits is tried. Each setting is compared with the current one, in turns, and the best
    is confirmed in pairs. All runs are kept; none is made again.

    It can be interrupted at any time: what runs on the host ends by itself, its server is started
    again, and the same command goes on.

    With --window a server behind a gateway is drained first; the last member of an alias is not
    stopped.
    """
    if picture:
        refuse_plot(picture)
    target, host, plan, instance = _subject(name, inventory)
    where = f"{host.name}/{instance.name}"
    facts = travelling_helper(host).ask(["gpus"], GPUS, "{}")
    space = _space(host, plan, instance, facts, only)
    if only_list:
        if as_json:
            _SUBJECTS.show(space.alone())
        else:
            show(space_table(space))
        return
    requests = _requests(
        _profile(instance, where), prompt_tokens, answer_tokens, concurrency, repeat
    )
    tuned = Tune(
        host=host,
        plan=plan,
        instance=instance,
        space=space,
        where="stop" if window else "beside",
        requests=requests,
        rules=Rules(goal=_GOALS[goal], may_lose=may_lose / 100),
        store=TuneStore(folder, _kept_by(instance, facts, requests, space, window=window)),
        budget_seconds=budget,
        print_line=partial(_print, where),
    )
    found = _run(tuned, target, force=force, inventory=inventory)
    if as_json:
        _TUNED.show(found)
    else:
        show(outcome_table(found.rows))
        for line in (verdict_line(found), *trade_lines(found)):
            echo(line)
    if picture and found.rows:
        plot_front(found.rows, where, picture)
    if found.verdict == "better":
        _offer(found, host, instance, applies=applies, err=as_json)


def _subject(name: str, inventory: Path | None) -> tuple[Target, Host, HostPlan, InstancePlan]:
    """The instance that is meant, with its host's whole plan. Raises CorralError."""
    target = reach_one(name, inventory)
    if len(target.names) != 1:
        named = " and ".join(f"{target.host.name}/{one}" for one in target.names)
        step = "name one of its instances" if named else "name a host that has instances"
        raise CorralError(name, f"is {named or 'a host without instances'}", step)
    ((whole, _),) = with_neighbours([target])
    made = planned([whole])
    if target.host.name in made.mistakes:
        # Printed by planned().
        sys.exit(1)
    plan = made.plans[target.host.name]
    instance = plan.instance(target.names[0])
    if instance is None:
        what = "left the inventory, and only what is planned is tuned"
        raise CorralError(name, what, "name one of the inventory")
    return target, target.host, plan, instance


def _space(
    host: Host, plan: HostPlan, instance: InstancePlan, facts: GpuHost, only: tuple[str, ...]
) -> Space:
    planner = load_planner(project_root(), tolerant=True, brief=True)
    machine = machine_of(facts, instance, planner.model_of(host, instance.name))
    where = f"{host.name}/{instance.name}"
    dimensions = dimensions_of(instance, machine, only=only, where=where)
    return Space(planner, host, plan, instance, dimensions)


def _profile(instance: InstancePlan, where: str) -> Profile:
    """The profile of a planned instance. Raises CorralError where nobody kept it."""
    if instance.settings is None:
        raise CorralError(where, "its plan has no profile", "deploy the host, then ask again")
    return instance.settings


def _requests(
    profile: Profile,
    prompt_tokens: str | None,
    answer_tokens: int | None,
    concurrency: int | None,
    repeat: int,
) -> Requests:
    """The requests of each run. Raises CorralError for lengths that do not fit in a slot."""
    whole = profile.context_tokens_per_slot
    answer = answer_tokens or max(2, min(_ANSWER_TOKENS, whole // 8))
    lengths = (
        _numbers(prompt_tokens) if prompt_tokens else [max(1, int(whole * n)) for n in _DEPTHS]
    )
    if max(lengths) + answer > whole:
        where = f"a prompt of {max(lengths)} and {answer} answer tokens"
        what = f"do not fit in the context of a slot, {whole} tokens"
        raise CorralError(where, what, "choose --prompt-tokens and --answer-tokens that do")
    return Requests(
        prompt_tokens=tuple(lengths),
        answer_tokens=answer,
        concurrency=concurrency or profile.slots,
        repeat=repeat,
    )


def _numbers(text: str) -> list[int]:
    parts = text.split(",")
    if not all(p.isascii() and p.isdigit() and 0 < int(p) <= MOST_TOKENS for p in parts):
        step = "give numbers of tokens, such as 1024,8192"
        raise CorralError(f"--prompt-tokens {text}", "is no list of numbers", step)
    return sorted({int(part) for part in parts})


def _kept_by(
    instance: InstancePlan, facts: GpuHost, requests: Requests, space: Space, *, window: bool
) -> dict[str, Any]:
    """What a record is of: with anything else measurements start afresh."""
    return {
        "release": instance.release,
        "model": [instance.model, instance.quant, instance.shards],
        "profile": instance.profile,
        "current": space.current.digest,
        "processors": facts.processors.model_dump(),
        "gpus": [[gpu.name, gpu.driver_version] for gpu in facts.gpus],
        "requests": requests.model_dump(mode="json"),
        "window": window,
    }


def _run(tuned: Tune, target: Target, *, force: bool, inventory: Path | None) -> Outcome:
    """Run it; in a window, with the server drained at its gateways until it serves again."""
    if kept := decided(tuned):
        return kept
    if tuned.where == "beside":
        return run(tuned)
    chosen = f" -i {inventory}" if inventory else ""
    command = f"corral tune {tuned.name} --window{chosen}"
    print_line = partial(echo, err=True)
    alone = [replace(target, names=(tuned.instance.name,))]
    refuse_last(alone, command, force=force, together=True, print_line=print_line)
    own = fronts(target, alone, command, force=force, print_line=print_line)
    limit, found = limit_seconds(tuned.host, tuned.instance.name), None
    with own.drained(tuned.name, limit) as drained:
        try:
            found = run(tuned)
        finally:
            if found is None:
                # The runs may continue on the host, or the server is down.
                drained.leave()
    own.after(tuned.name)
    return found


def _offer(found: Outcome, host: Host, instance: InstancePlan, *, applies: bool, err: bool) -> None:
    """Show the change of the inventory, and write it where that is asked for and safe."""
    spec = next(one for one in host.spec.instances if one.name == instance.name)
    overrides = {**spec.overrides, **found.keys}
    path = Path(host.origin)
    text = with_overrides(path, host.name, instance.name, overrides) if host.origin else None
    if text is None:
        echo(
            f"{host.origin or 'the inventory'} is not edited: no single place of it is "
            f'{found.name} alone. Give the instance\n  "overrides": {overrides!r}',
            err=err,
        )
        return
    before = path.read_text(encoding="utf-8")
    names = (str(path), f"{path} (tuned)")
    difference = difflib.unified_diff(before.splitlines(True), text.splitlines(True), *names)
    if err:
        echo("".join(difference), err=True)
    else:
        echo_file("".join(difference))
    if not applies:
        echo("`--apply` writes this; the runs are kept, so that nothing is measured again", err=err)
        return
    write_atomic(path, text, next_step="free disk space, then run the same command again")
    step = f"pyinfra {path} deploy.py --limit {host.name}"
    echo(f"{path} is written; `{step}` rolls it out through the gate", err=err)


def _print(name: str, line: str) -> None:
    echo(f"{name}: {line}", err=True)
