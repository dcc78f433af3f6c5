"""`corral baseline`: the tokens/s that new generations of an instance are compared with."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from corral_shared.text import counted
from pydantic import TypeAdapter
from rich.text import Text

from corral.cli.documents import Document
from corral.cli.reach import reach
from corral.cli.select import inventory_option
from corral.errors import CorralError
from corral.host.answers import BASELINES, FORGOTTEN, Baseline, Forgotten, StoredBaseline
from corral.inventory.hosts import Host
from corral.plan.host import HostPlan
from corral.remote.client import travelling_helper
from corral.remote.run import on_all
from corral.terminal import Rows, coloured, echo, show

Target = tuple[Host, HostPlan]
Answer = Sequence[StoredBaseline] | Forgotten | str
_BASELINES = Document(
    "baseline",
    TypeAdapter(dict[str, list[StoredBaseline] | Forgotten | str]),
    "corral baseline",
    about="Host -> baselines, or the forgotten ones with --forget, or why it does not answer.",
)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="HOST|INSTANCE|HOST/INSTANCE...")
@click.option("--forget", is_flag=True, help="Remove it; the next kept generation sets a new one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@inventory_option
def baseline(names: tuple[str, ...], forget: bool, as_json: bool, inventory: Path | None) -> None:
    """Show or forget the tokens/s that the gate compares with.

    Exit code 1: a baseline is damaged, or a host does not answer.
    """
    targets = [target.pair for target in reach(names, inventory)]
    answers = on_all(_forget if forget else baselines_of, targets)
    found = {plan.host: answer for (_, plan), answer in zip(targets, answers, strict=True)}
    if as_json:
        _BASELINES.show(found)
    elif forget:
        _print_forgotten(targets, found)
    else:
        show(_table(found))
    sys.exit(0 if all(_is_good(answer) for answer in answers) else 1)


def baselines_of(target: Target) -> Answer:
    """The baselines of a host, or why there are none, as text."""
    host, plan = target
    try:
        return travelling_helper(host).ask(["baselines"], BASELINES, plan.to_helper())
    except CorralError as error:
        return str(error)


def _forget(target: Target) -> Answer:
    """The removed baselines of a host, or why it failed, as text."""
    host, plan = target
    try:
        return travelling_helper(host).ask(["forget"], FORGOTTEN, plan.to_helper())
    except CorralError as error:
        return str(error)


def _is_good(answer: Answer) -> bool:
    if isinstance(answer, Forgotten):
        return True
    return not isinstance(answer, str) and not any(row.problem for row in answer)


def _print_forgotten(targets: list[Target], found: Mapping[str, Answer]) -> None:
    for _, plan in targets:
        answer = found[plan.host]
        if not isinstance(answer, Forgotten):
            echo(answer, err=True)
            continue
        for instance in plan.instances:
            was = instance.name in answer.forgotten
            echo(f"{plan.host}/{instance.name}: {'forgotten' if was else 'there was none'}")


def _table(found: Mapping[str, Answer]) -> Rows:
    heads = ("host", "instance", "profile", "GPUs", "tokens/s", "generation", "kept at")
    table = Rows(*heads)
    for host, answer in found.items():
        if isinstance(answer, str):
            table.add(host, coloured(answer, "red"))
            continue
        for row in answer if not isinstance(answer, Forgotten) else ():
            table.add(host, row.instance, *_cells(row))
    return table


def _cells(row: StoredBaseline) -> tuple[str | Text, ...]:
    stored: Baseline | None = row.baseline
    if stored is None:
        return (coloured(row.problem, "red") if row.problem else "none",)
    gpus = ", ".join(map(str, stored.gpus)) or "-"
    figures = "\n".join(_figure(name, samples) for name, samples in stored.samples.items())
    return stored.profile, gpus, figures, stored.generation, stored.at


def _figure(name: str, samples: Sequence[float]) -> str:
    spread = f"{statistics.stdev(samples) / statistics.fmean(samples):.1%}"
    return (
        f"{statistics.fmean(samples):.1f} {name} ({counted(len(samples), 'run')}, spread {spread})"
    )
