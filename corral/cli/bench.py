"""`corral bench`: benchmark instances on their hosts, list results, compare two."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import click
from pydantic import TypeAdapter

from corral.bench.compare import Comparison
from corral.bench.compare import compare as compare_results
from corral.bench.load.compare import LoadComparison, compare_loads
from corral.bench.load.plot import plot_loads
from corral.bench.load.result import LoadResult
from corral.bench.load.run import LoadTest
from corral.bench.load.workload import MOST_TOKENS
from corral.bench.plot import plot, refuse_plot
from corral.bench.result import Result
from corral.bench.run import Benchmark, run
from corral.bench.store import ResultStore
from corral.cli.documents import Document
from corral.cli.fronts import force_option, fronts, limit_seconds, refuse_empty, refuse_last
from corral.cli.load import LoadOptions, load_options, run_load_tests
from corral.cli.measured import to_measure, with_neighbours
from corral.cli.reach import Target, planned, reach
from corral.cli.select import inventory_option
from corral.cli.short_group import ShortGroup
from corral.cli.views.bench import comparison_table, listing_table, result_table
from corral.cli.views.load import load_comparison_table
from corral.engines.benchmark import Lengths
from corral.errors import CorralError
from corral.paths import default_results_folder
from corral.remote.run import on_all
from corral.rollout.pausing import DrainedServer, Gateways
from corral.terminal import Rows, echo, show

plot_option = click.option(
    "--plot", "picture", type=click.Path(path_type=Path), help="Draw to FILE.png or FILE.svg."
)
results_option = click.option(
    "--results",
    "folder",
    type=click.Path(path_type=Path),
    default=default_results_folder,
    help="Folder of results.  [default: ~/.local/share/corral/bench]",
)

Measure = Callable[[Benchmark], Result]
_MEASURED = Document(
    "bench", TypeAdapter(list[Result]), "corral bench run", about="Results of this run."
)
_LISTED = Document(
    "bench-list",
    TypeAdapter(list[Result | LoadResult]),
    "corral bench list",
    about="Results on this controller.",
)
_COMPARED = Document(
    "bench-compare",
    TypeAdapter(Comparison | LoadComparison),
    "corral bench compare",
    about="A comparison of two results.",
)
_REPETITIONS = 5


@click.group(cls=ShortGroup, meant="run")
def bench() -> None:
    """Benchmark instances on their hosts; list and compare results.

    `corral bench NAME` is short for `corral bench run NAME`.
    """


@bench.command("run")
@click.argument("names", nargs=-1, required=True, metavar="HOST|INSTANCE|HOST/INSTANCE...")
@click.option(
    "--stop/--beside",
    default=False,
    help="Stop the server meanwhile, or run beside it where memory allows (default).",
)
@force_option
@click.option(
    "--repetitions",
    type=click.IntRange(1, 1000),
    help=f"Of each test.  [default: {_REPETITIONS}; 1 with --load]",
)
@click.option(
    "--prompt-tokens",
    type=click.IntRange(1, MOST_TOKENS),
    help="Tokens of a prompt.  [default: 512, or half of a slot]",
)
@click.option(
    "--generated-tokens",
    type=click.IntRange(1, MOST_TOKENS),
    help="Tokens to generate.  [default: 128, or half of a slot]",
)
@load_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@plot_option
@results_option
@inventory_option
def run_command(
    names: tuple[str, ...],
    stop: bool,
    force: bool,
    repetitions: int | None,
    prompt_tokens: int | None,
    generated_tokens: int | None,
    load_options: LoadOptions,
    as_json: bool,
    picture: Path | None,
    folder: Path,
    inventory: Path | None,
) -> None:
    """Run the engine's own benchmark for instances, or a load test with --load.

    With the release, model and profile of each instance.

    It continues when this command is killed; the same command joins it, or fetches its result.
    Where a host cannot be planned, its installed generations are measured.

    With --stop a server behind a gateway is drained first; the last member of an alias is not
    stopped.

    With --load the running servers get completions, and it ends with this command.
    """
    load_options.refuse_contradictions()
    if picture:
        refuse_plot(picture)
    if load_options.load and (prompt_tokens or generated_tokens):
        what = "are lengths of the engine's own benchmark"
        raise CorralError("--prompt-tokens and --generated-tokens", what, "use --workload IN/OUT")
    if load_options.load and stop:
        raise CorralError("--stop", "a load test needs the server", "leave out --stop")
    reached, store = reach(names, inventory), ResultStore(folder)
    refuse_empty(reached)
    if load_options.load:
        run_load_tests(
            reached,
            load_options,
            store,
            repetitions=repetitions or 1,
            drained=partial(_drained, force),
            as_json=as_json,
            picture=picture,
        )
    targets = with_neighbours(reached)
    made = planned([target for target, _ in targets])
    how = partial(
        Benchmark,
        where="stop" if stop else "beside",
        repetitions=repetitions or _REPETITIONS,
        lengths=Lengths(prompt_tokens, generated_tokens),
    )
    measure: Measure = partial(_measure, store)
    if stop:
        chosen = f" -i {inventory}" if inventory else ""
        command = f"corral bench {' '.join(names)} --stop{chosen}"
        print_line = partial(echo, err=True)
        # Hosts are measured in parallel.
        refuse_last(reached, command, force=force, together=len(reached) > 1, print_line=print_line)
        gateways = {
            t.host.name: fronts(t, [t], command, force=force, print_line=print_line)
            for t in reached
        }
        measure = partial(_measure_drained, store, gateways)
    outcomes = on_all(lambda selected: _run_all(to_measure(selected, made, how), measure), targets)
    results = [one for outcome in outcomes for one in outcome if isinstance(one, Result)]
    errors = [one for outcome in outcomes for one in outcome if isinstance(one, CorralError)]
    _show(results, as_json)
    if picture and results:
        plot(results, picture)
    for error in errors:
        echo(error, err=True)
    sys.exit(1 if errors else 0)


@bench.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@results_option
def list_command(folder: Path, as_json: bool) -> None:
    """List the results on this controller."""
    results = list(ResultStore(folder).results())
    if as_json:
        _LISTED.show(results)
    else:
        show(listing_table(results))


@bench.command("compare")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--load", is_flag=True, help="Compare load tests; not needed for files.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@plot_option
@results_option
def compare_command(
    a: str, b: str, load: bool, as_json: bool, picture: Path | None, folder: Path
) -> None:
    """Compare two results.

    A and B are files, or HOST/INSTANCE or HOST/INSTANCE@RELEASE for the newest result. Noise is
    the spread within each run: measure both under the same load of the host.
    """
    store = ResultStore(folder)
    if load or store.is_load(a) or store.is_load(b):
        loads = store.find_load(a), store.find_load(b)
        if picture:
            plot_loads(loads, picture)
        compared = compare_loads(*loads)
        _show_comparison(compared, load_comparison_table(compared), as_json)
        return
    results = store.find(a), store.find(b)
    if picture:
        plot(results, picture)
    comparison = compare_results(*results)
    _show_comparison(comparison, comparison_table(comparison), as_json)


def _show_comparison(comparison: Comparison | LoadComparison, table: Rows, as_json: bool) -> None:
    if as_json:
        _COMPARED.show(comparison)
        return
    echo(f"A  {comparison.a}\nB  {comparison.b}")
    for note in comparison.notes:
        echo(f"   {note}")
    show(table)


def _run_all(
    benchmarks: Sequence[Benchmark | CorralError], measure: Measure
) -> list[Result | CorralError]:
    """Run benchmarks one after the other; a failure does not stop the others."""
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
    return run(benchmark, store, partial(_print, benchmark.name))


def _measure_drained(
    store: ResultStore, gateways: Mapping[str, Gateways], benchmark: Benchmark
) -> Result:
    """Measure with the server drained at its gateways, until it serves again."""
    benchmark.refuse_unmeasurable()
    own = gateways[benchmark.host.name]
    result = None
    with own.drained(
        benchmark.name, limit_seconds(benchmark.host, benchmark.instance.name)
    ) as drained:
        try:
            result = _measure(store, benchmark)
        finally:
            if result is None:
                # The benchmark may continue, or the server is down.
                drained.leave()
    own.after(benchmark.name)
    return result


def _drained(force: bool, target: Target, test: LoadTest) -> AbstractContextManager[DrainedServer]:
    command = f"corral bench {test.name} --load --drain"
    print_line = partial(echo, err=True)
    own = fronts(target, [target], command, force=force, print_line=print_line)
    own.refuse_last([test.name], together=False)
    return own.drained(test.name, limit_seconds(test.host, test.instance.name))


def _print(name: str, line: str) -> None:
    echo(f"{name}: {line}", err=True)


def _show(results: Sequence[Result], as_json: bool) -> None:
    if as_json:
        _MEASURED.show(list(results))
        return
    for result in results:
        echo(
            f"\n{result.name} on {result.devices}: {result.engine} {result.release}, "
            f"{result.model} {result.quant}, profile {result.profile}, server {result.where}"
        )
        if result.left_out:
            echo(f"  not part of it: {', '.join(result.left_out)}")
        show(result_table(result))
