"""`corral bench`: measure instances where they run, list what was measured, compare two."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from corral.bench.compare import compare as compare_results
from corral.bench.plot import plot, refuse_plot
from corral.bench.result import Result
from corral.bench.run import Benchmark, Where, run
from corral.bench.store import ResultStore
from corral.cli.select import inventory_option, select
from corral.cli.views.bench import comparison_table, listing_table, result_table
from corral.errors import CorralError
from corral.paths import default_results_folder
from corral.project import load_planner, project_root
from corral.remote.run import on_all
from corral.terminal import say, say_json, show

plot_option = click.option(
    "--plot", "picture", type=click.Path(path_type=Path), help="Draw to FILE.png or FILE.svg."
)
results_option = click.option(
    "--results",
    "folder",
    type=click.Path(path_type=Path),
    default=default_results_folder,
    help="Where results are kept.  [default: ~/.local/share/corral/bench]",
)


class _RunIsMeant(click.Group):
    """A first word that is no command is what to run: `corral bench lab-1/tiny-chat`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_RunIsMeant)
def bench() -> None:
    """Measure instances on their hosts; keep, list and compare the results.

    `corral bench NAME` is short for `corral bench run NAME`.
    """


@bench.command("run")
@click.argument("names", nargs=-1, required=True, metavar="HOST|INSTANCE|HOST/INSTANCE...")
@click.option(
    "--stop/--beside",
    default=False,
    help="Stop the server meanwhile, or measure beside it where memory allows (the default).",
)
@click.option("--repetitions", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@plot_option
@results_option
@inventory_option
def run_command(
    names: tuple[str, ...],
    stop: bool,
    repetitions: int,
    as_json: bool,
    picture: Path | None,
    folder: Path,
    inventory: Path | None,
) -> None:
    """Run the engine's own benchmark with an instance's release, model and profile.

    It goes on when this command is killed; the same command again joins it, or fetches its result.
    """
    if picture:
        refuse_plot(picture)
    wanted = _benchmarks(names, inventory, "stop" if stop else "beside", repetitions)
    outcomes = on_all(lambda of_host: _run_all(of_host, ResultStore(folder)), wanted)
    results = [one for outcome in outcomes for one in outcome if isinstance(one, Result)]
    errors = [one for outcome in outcomes for one in outcome if isinstance(one, CorralError)]
    _show(results, as_json)
    if picture and results:
        plot(results, picture)
    for error in errors:
        say(error, err=True)
    sys.exit(1 if errors else 0)


@bench.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@results_option
def list_command(folder: Path, as_json: bool) -> None:
    """Show the results that are kept here."""
    results = list(ResultStore(folder).results())
    if as_json:
        say_json([result.model_dump(mode="json") for result in results])
    else:
        show(listing_table(results))


@bench.command("compare")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@plot_option
@results_option
def compare_command(a: str, b: str, as_json: bool, picture: Path | None, folder: Path) -> None:
    """Put two results side by side.

    A and B are files, or HOST/INSTANCE or HOST/INSTANCE@RELEASE for the newest result. Noise is
    the spread within each run: measure both on a host that does the same beside it.
    """
    store = ResultStore(folder)
    results = store.find(a), store.find(b)
    if picture:
        plot(results, picture)
    comparison = compare_results(*results)
    if as_json:
        say_json(comparison.model_dump(mode="json"))
        return
    say(f"A  {comparison.a}\nB  {comparison.b}")
    for note in comparison.notes:
        say(f"   {note}")
    show(comparison_table(comparison))


def _benchmarks(
    names: tuple[str, ...], inventory: Path | None, where: Where, repetitions: int
) -> list[list[Benchmark]]:
    """Those of one host together, as they run one after the other."""
    catalog = load_planner(project_root()).catalog
    return [
        [
            Benchmark(
                host=host,
                plan=fleet.whole(host.name),
                instance=instance,
                profile=catalog.profile(instance.profile, where=host.name),
                where=where,
                repetitions=repetitions,
            )
            for instance in chosen.instances
        ]
        for fleet in select(names, inventory)
        for host, chosen in fleet.pairs()
    ]


def _run_all(benchmarks: list[Benchmark], store: ResultStore) -> list[Result | CorralError]:
    """One after the other; one that fails does not keep the others from running."""
    outcomes: list[Result | CorralError] = []
    for benchmark in benchmarks:
        try:
            outcomes.append(run(benchmark, store, partial(_say, benchmark.name)))
        except CorralError as error:
            outcomes.append(error)
    return outcomes


def _say(name: str, line: str) -> None:
    say(f"{name}: {line}", err=True)


def _show(results: Sequence[Result], as_json: bool) -> None:
    if as_json:
        say_json([result.model_dump(mode="json") for result in results])
        return
    for result in results:
        say(
            f"\n{result.name} on {result.devices}: {result.engine} {result.release}, "
            f"{result.model} {result.quant}, profile {result.profile}, server {result.where}"
        )
        if result.left_out:
            say(f"  not part of it: {', '.join(result.left_out)}")
        show(result_table(result))
