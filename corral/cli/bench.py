"""`corral bench`: measure instances where they run, list what was measured, compare two."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import click

from corral.bench.compare import compare as compare_results
from corral.bench.plot import plot, refuse_plot
from corral.bench.result import Result
from corral.bench.run import Benchmark, run
from corral.bench.store import ResultStore
from corral.cli.fronts import force_option, fronts, limit_seconds, refuse_empty, refuse_last
from corral.cli.reach import Planned, Target, as_kept, not_installed, planned, reach
from corral.cli.select import inventory_option
from corral.cli.views.bench import comparison_table, listing_table, result_table
from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.paths import default_results_folder
from corral.plan.host import HostPlan
from corral.plan.instance import InstancePlan
from corral.remote.run import on_all
from corral.rollout.pausing import Gateways
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

Asked = tuple[Target, tuple[str, ...]]
Measure = Callable[[Benchmark], Result]


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
@force_option
@click.option("--repetitions", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@plot_option
@results_option
@inventory_option
def run_command(
    names: tuple[str, ...],
    stop: bool,
    force: bool,
    repetitions: int,
    as_json: bool,
    picture: Path | None,
    folder: Path,
    inventory: Path | None,
) -> None:
    """Run the engine's own benchmark with an instance's release, model and profile.

    It goes on when this command is killed; the same command again joins it, or fetches its result.
    Where a mistake keeps a host from being planned, what is installed there is measured.

    With --stop a server behind a gateway is drained first; the last one of an alias is not stopped.
    """
    if picture:
        refuse_plot(picture)
    reached, store = reach(names, inventory), ResultStore(folder)
    refuse_empty(reached)
    targets = _whole(reached)
    made = planned([target for target, _ in targets])
    how = partial(Benchmark, where="stop" if stop else "beside", repetitions=repetitions)
    measure: Measure = partial(_measure, store)
    if stop:
        chosen = f" -i {inventory}" if inventory else ""
        command = f"corral bench {' '.join(names)} --stop{chosen}"
        tell = partial(say, err=True)
        # Hosts are measured at the same time.
        refuse_last(reached, command, force=force, together=len(reached) > 1, tell=tell)
        gateways = {t.host.name: fronts(t, [t], command, force=force, tell=tell) for t in reached}
        measure = partial(_measure_away, store, gateways)
    outcomes = on_all(lambda asked: _run_all(_benchmarks(asked, made, how), measure), targets)
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


def _whole(targets: Sequence[Target]) -> list[Asked]:
    """Hosts with all their instances, beside which one is measured; and who was asked for."""
    return [
        (replace(target, names=target.host.instance_names, whole=False), target.names)
        for target in targets
    ]


def _benchmarks(
    asked: Asked, made: Planned, how: Callable[[Host, HostPlan, InstancePlan], Benchmark]
) -> list[Benchmark | CorralError]:
    """Those of one host together, as they run one after the other."""
    target, names = asked
    try:
        plan = _plan(target, made)
    except CorralError as error:
        return [error]
    found = {name: plan.instance(name) for name in names}
    return [
        how(target.host, plan, one) if one else not_installed(target.host, name)
        for name, one in found.items()
    ]


def _plan(target: Target, made: Planned) -> HostPlan:
    """Of a whole host; where none can be made, what is installed there. Raises CorralError."""
    if plan := made.plans.get(target.host.name):
        return plan
    kept = as_kept(replace(target, names=()), whole=True)
    say(f"{target.host.name} is measured as it is installed there, not as planned", err=True)
    return kept


def _run_all(
    benchmarks: Sequence[Benchmark | CorralError], measure: Measure
) -> list[Result | CorralError]:
    """One after the other; one that fails does not keep the others from running."""
    outcomes: list[Result | CorralError] = []
    for benchmark in benchmarks:
        try:
            if isinstance(benchmark, CorralError):
                raise benchmark
            outcomes.append(measure(benchmark))
        except CorralError as error:
            outcomes.append(error)
    return outcomes


def _measure(store: ResultStore, benchmark: Benchmark) -> Result:
    return run(benchmark, store, partial(_say, benchmark.name))


def _measure_away(
    store: ResultStore, gateways: Mapping[str, Gateways], benchmark: Benchmark
) -> Result:
    """With the server drained at its gateways, until it serves again."""
    benchmark.refuse_unmeasurable()
    own = gateways[benchmark.host.name]
    result = None
    with own.drained(benchmark.name, limit_seconds(benchmark.host, benchmark.instance.name)) as drained:
        try:
            result = _measure(store, benchmark)
        finally:
            if result is None:
                # Perhaps it goes on, or the server is down.
                drained.leave()
    own.after(benchmark.name)
    return result


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
