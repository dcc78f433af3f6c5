"""`corral bench --load`: test what users of a server feel."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import click
from pydantic import TypeAdapter

from corral.bench.load.plot import plot_loads
from corral.bench.load.result import LoadResult
from corral.bench.load.run import LoadTest, Through, run
from corral.bench.load.workload import (
    MOST_CONCURRENCY,
    MOST_PROMPTS,
    PROMPTS,
    WORKLOADS,
    cases,
    lengths,
)
from corral.bench.store import ResultStore
from corral.cli.documents import Document
from corral.cli.measured import Selected, to_measure, with_neighbours
from corral.cli.reach import Target, fleet_of, planned
from corral.cli.views.load import load_lines, load_table
from corral.engines.load import AT_ONCE, LoadCase
from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.schema import did_you_mean
from corral.terminal import echo, show

_SWEEP = "sweep"
_DEFAULT_WORKLOAD, _DEFAULT_PROMPTS = "1000/1000", "16"
_HOUR_SECONDS = 3600
_DAY_SECONDS = 24 * 3600


_LOADED = Document(
    "bench-load",
    TypeAdapter(list[LoadResult]),
    "corral bench run",
    about="Results of this load test; with --load.",
)


@dataclass(frozen=True)
class LoadOptions:
    """The options of a load test as typed; None where not given."""

    load: bool
    workload: str | None
    prompts: str | None
    request_rate: str | None
    concurrency: str | None
    through: str | None
    drain: bool
    time_limit: int | None

    def refuse_contradictions(self) -> None:
        """Raise CorralError where an option is given without --load, or against another."""
        if self.drain and self.through:
            what = "sends a drained server nothing"
            raise CorralError(f"--through {self.through}", what, "leave out --drain or --through")
        given = [name for name, value in vars(self).items() if value not in (None, False)]
        if given and not self.load:
            option = f"--{given[0].replace('_', '-')}"
            raise CorralError(option, "is an option of load tests", "add --load")

    def cases(self) -> tuple[LoadCase, ...]:
        """All measurements. Raises CorralError."""
        workloads = [lengths(text) for text in _split(self.workload or _DEFAULT_WORKLOAD)]
        prompts = self.prompts or _DEFAULT_PROMPTS
        numbers = PROMPTS if prompts == _SWEEP else tuple(_numbers("--prompts", prompts))
        rates = _rates(self.request_rate) if self.request_rate else (AT_ONCE,)
        at_a_time = _numbers("--concurrency", self.concurrency) if self.concurrency else (None,)
        return cases(workloads, numbers, rates, at_a_time)


def load_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of load tests to a command, which gets them as ``load_options``."""

    @click.option(
        "--load",
        is_flag=True,
        help="Test what users feel instead: completions over HTTP, streamed.",
    )
    @click.option(
        "--workload",
        metavar="IN/OUT,...",
        help=f"Tokens of prompts and answers, such as {', '.join(WORKLOADS)}.  "
        f"[default: {_DEFAULT_WORKLOAD}]",
    )
    @click.option(
        "--prompts",
        metavar="N,...",
        help=f"Requests of each measurement, up to {MOST_PROMPTS}; `{_SWEEP}`: "
        f"{', '.join(map(str, PROMPTS))}.  [default: {_DEFAULT_PROMPTS}]",
    )
    @click.option(
        "--request-rate",
        metavar="N,...",
        help="Requests that arrive per second, at random.  [default: all at once]",
    )
    @click.option(
        "--concurrency",
        metavar="N,...",
        help=f"Most requests in flight, up to {MOST_CONCURRENCY}.  [default: all]",
    )
    @click.option(
        "--through",
        metavar="GATEWAY",
        help="Send the requests through this gateway of the inventory.",
    )
    @click.option(
        "--drain",
        is_flag=True,
        help="Drain the server at its gateways meanwhile, so that it serves nobody else.",
    )
    @click.option(
        "--time-limit",
        type=click.IntRange(1, _DAY_SECONDS),
        metavar="SECONDS",
        help=f"End each measurement then; what runs has failed.  [default: {_HOUR_SECONDS}]",
    )
    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        own = {name: given.pop(name) for name in LoadOptions.__dataclass_fields__}
        command(load_options=LoadOptions(**own), **given)

    return with_options


def run_load_tests(
    targets: Sequence[Target],
    options: LoadOptions,
    store: ResultStore,
    *,
    repetitions: int,
    drained: Callable[[Target, LoadTest], AbstractContextManager[object]],
    as_json: bool,
    picture: Path | None,
) -> None:
    """Run load tests one after the other: two would disturb each other on this controller.

    + drained: drains a server at its gateways for a block
    Exit code 1: a test failed, or requests did.
    """
    chosen, selected = options.cases(), with_neighbours(targets)
    made = planned([target for target, _ in selected])
    results, errors = list[LoadResult](), list[CorralError]()
    for target, one in zip(targets, selected, strict=True):
        for test in _tests(one, to_measure(one, made, _how(chosen, options, repetitions)), options):
            try:
                if isinstance(test, CorralError):
                    raise test
                with drained(target, test) if options.drain else nullcontext():
                    results.append(_run(test, store))
            except CorralError as error:
                errors.append(error)
    _show(results, as_json)
    if picture and results:
        plot_loads(results, picture)
    for failed in errors:
        echo(failed, err=True)
    sys.exit(1 if errors or any(result.failed for result in results) else 0)


def _how(
    chosen: tuple[LoadCase, ...], options: LoadOptions, repetitions: int
) -> Callable[..., LoadTest]:
    return partial(
        LoadTest,
        cases=chosen,
        repetitions=repetitions,
        limit_seconds=options.time_limit or _HOUR_SECONDS,
    )


def _tests(
    selected: Selected, found: Sequence[LoadTest | CorralError], options: LoadOptions
) -> Iterator[LoadTest | CorralError]:
    """With the gateway that the requests pass."""
    for test in found:
        if options.through is None or isinstance(test, CorralError):
            yield test
            continue
        try:
            yield replace(test, through=_through(selected[0], test, options.through))
        except CorralError as error:
            yield error


def _through(target: Target, test: LoadTest, name: str) -> Through:
    """The gateway of a name. Raises CorralError where it does not serve the instance."""
    gateways = {host.name: host for host in target.inventory.hosts if "gateway" in host.data}
    if name not in gateways:
        what = f"is no gateway of {test.host.name}'s inventory{did_you_mean(name, gateways)}"
        raise CorralError(f"--through {name}", what, "see `corral gateway status`")
    host: Host = gateways[name]
    fleet = fleet_of(target.inventory)
    if mistake := fleet.gateway_mistakes.get(name):
        raise mistake
    plan = fleet.gateways.get(name)
    pool = plan.pool_of(test.name) if plan else None
    if plan is None or pool is None:
        what = f"does not serve {test.name}"
        step = f"leave --through out, or add the alias {test.instance.alias} to the gateway"
        raise CorralError(name, what, step)
    return Through(host, plan, pool)


def _run(test: LoadTest, store: ResultStore) -> LoadResult:
    print_line = partial(_print, test.name)
    result = run(test, print_line)
    print_line(f"kept in {store.save(result)}")
    return result


def _print(name: str, line: str) -> None:
    echo(f"{name}: {line}", err=True)


def _show(results: Sequence[LoadResult], as_json: bool) -> None:
    if as_json:
        _LOADED.show(list(results))
        return
    for result in results:
        echo("")
        for line in load_lines(result):
            echo(line)
        show(load_table(result))


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(option: str, text: str) -> list[int]:
    parts = _split(text)
    if not parts or not all(part.isascii() and part.isdigit() for part in parts):
        raise CorralError(f"{option} {text}", "is no whole number", "such as 16, or 16,32,64")
    return [int(part) for part in parts]


def _rates(text: str) -> list[float | Literal["inf"]]:
    try:
        return [AT_ONCE if part == AT_ONCE else float(part) for part in _split(text)]
    except ValueError:
        step = "such as 2, or 0.5,1,2"
        raise CorralError(f"--request-rate {text}", "is no number", step) from None
