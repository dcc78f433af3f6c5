"""Tune an instance: ask the search, measure on its host, keep what came, until it is decided."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from corral_shared.text import counted

from corral.bench import job
from corral.bench.document import measured
from corral.bench.result import instance_fields
from corral.bench.tune.gains import Objective, Setting, ratio
from corral.bench.tune.record import KeptBlock, Record, Requests, Row, kept_run, rows
from corral.bench.tune.search import Decided, Known, Measure, Rules, Search, Verdict
from corral.bench.tune.space import KEY_FILE, PORT, Candidate, Space
from corral.bench.tune.store import TuneStore
from corral.engines import engine_module
from corral.errors import CorralError
from corral.host.answers import TUNED, Tuned
from corral.host.reading import as_answer
from corral.inventory.hosts import Host
from corral.plan.host import HostPlan
from corral.plan.instance import InstancePlan
from corral.schema import Frozen

# Of one request, and of all requests of a run: a longer one is no candidate for anything.
_REQUEST_SECONDS, _RUN_SECONDS = 900, 3600

Clock = Callable[[], float]


class Outcome(Frozen):
    """The end of a search.

    + verdict: better: ``choices`` and ``keys`` are; none: no difference; unknown: the budget ended
    + keys: of the profile, to override; empty unless better
    + gain_percent, margin_percent: of the goal, with half of its interval; None where not confirmed
    + runs: in all; + rows: the best for the goal first; + record: the file with all runs
    """

    name: str
    goal: Objective
    verdict: Verdict
    choices: dict[str, str] = {}
    keys: dict[str, Any] = {}
    gain_percent: float | None = None
    margin_percent: float | None = None
    runs: int
    rows: tuple[Row, ...]
    record: str


@dataclass(frozen=True)
class Tune:
    """One instance to tune; ``where``: beside its server, or with it stopped meanwhile."""

    host: Host
    plan: HostPlan
    instance: InstancePlan
    space: Space
    where: Literal["beside", "stop"]
    requests: Requests
    rules: Rules
    store: TuneStore
    budget_seconds: float
    print_line: job.PrintLine
    clock: Clock = field(default=time.monotonic)

    @property
    def name(self) -> str:
        """HOST/INSTANCE, as arguments of `corral`."""
        return f"{self.host.name}/{self.instance.name}"

    def spec(self, measure: Measure, number: int) -> dict[str, Any]:
        """What the job works from (files/corral_host/bench/tune.py); ``number``: of the block."""
        settings = list(dict.fromkeys([(0,) * len(self.space.sizes), *measure.order]))
        engine = engine_module(self.instance.kind)
        return {
            **measured(self.host, self.plan, self.instance),
            "where": self.where,
            "number": number,
            "commands": [],
            "servers": [_server(self.candidate(setting)) for setting in settings],
            "order": [settings.index(setting) for setting in measure.order],
            "requests": {
                "port": PORT,
                "key_file": KEY_FILE,
                "health": engine.routes.health.path,
                "alias": self.instance.alias,
                "lengths": list(self.requests.prompt_tokens),
                "answer_tokens": self.requests.answer_tokens,
                "concurrency": self.requests.concurrency,
                "repeat": self.requests.repeat,
                "fields": dict(engine.load_fields),
                "seconds": _REQUEST_SECONDS,
            },
            "limit_seconds": _RUN_SECONDS,
        }

    def candidate(self, setting: Setting) -> Candidate:
        """A setting that the search chose. Raises CorralError where it cannot run."""
        found = self.space.at(setting)
        if not isinstance(found, Candidate):
            raise CorralError(
                self.name, f"cannot run so: {found.why}", "run the same command again"
            )
        return found

    def next_step(self, record: Record | None, began: float) -> Measure | Decided:
        """What the search asks for next, within the budget."""
        known = record.known(self.space) if record else Known()
        left = self._runs_left(record, began)
        space = self.space
        search = Search(space.sizes, known, self.rules, space.feasible, left)
        return search.next_step()

    def _runs_left(self, record: Record | None, began: float) -> int | None:
        each = record.run_seconds if record else None
        if each is None:
            return None
        return max(0, int((self.budget_seconds - (self.clock() - began)) / each))


def decided(tune: Tune) -> Outcome | None:
    """The outcome by what is kept alone; None where something is to be measured."""
    record = tune.store.record(tune.host.name, tune.instance.name)
    step = tune.next_step(record, tune.clock())
    return outcome(tune, step, record) if isinstance(step, Decided) else None


def run(tune: Tune) -> Outcome:
    """Search until it is decided or the budget ends. Raises CorralError; what was kept stays."""
    record = tune.store.record(tune.host.name, tune.instance.name)
    if record:
        runs = sum(len(block.runs) for block in record.blocks)
        tune.print_line(f"kept from before: {counted(runs, 'run')}")
    began, checked = tune.clock(), False
    while isinstance(step := tune.next_step(record, began), Measure):
        if not checked:
            job.refuse_other_helper(tune.host, tune.plan)
            checked = True
        tune.print_line(f"{step.why}: {counted(len(step.order), 'run')}")
        record = measure(tune, step, record)
    return outcome(tune, step, record)


def measure(tune: Tune, step: Measure, record: Record | None) -> Record:
    """Make the runs of a step, or fetch those that were made meanwhile, and keep them."""
    number = len(record.blocks) if record else 0
    question = job.Question(
        host=tune.host,
        helper=tune.plan.paths.helper,
        instance=tune.instance.name,
        kind="tune",
        spec=tune.spec(step, number),
    )
    answer = job.answer_of(question, tune.store, tune.print_line)
    found = as_answer(TUNED, answer, where=tune.name)
    if [run.server for run in found.runs] != question.spec["order"]:
        what = "the host measured other settings than were asked for"
        raise CorralError(tune.name, what, "run the same command again")
    kept = _with(record or _fresh(tune, found), _block(tune, step, found))
    tune.store.save(kept)
    tune.store.forget(tune.host.name, tune.instance.name)
    return kept


def _block(tune: Tune, step: Measure, found: Tuned) -> KeptBlock:
    runs = tuple(
        kept_run(run, tune.space.choices(setting), tune.candidate(setting).digest)
        for run, setting in zip(found.runs, step.order, strict=True)
    )
    return KeptBlock(began_at=found.began_at, seconds=found.seconds, paired=step.paired, runs=runs)


def _with(record: Record, block: KeptBlock) -> Record:
    blocks = (*record.blocks, block)
    return record.model_copy(
        update={"blocks": blocks, "seconds": round(sum(one.seconds for one in blocks), 1)}
    )


def _fresh(tune: Tune, found: Tuned) -> Record:
    return Record(
        host=tune.host.name,
        **instance_fields(tune.instance),
        began_at=found.began_at,
        seconds=0,
        cpu=found.cpu,
        gpus=found.gpus,
        commit=found.commit,
        repetitions=tune.requests.repeat,
        where=found.where,
        requests=tune.requests,
    )


def outcome(tune: Tune, decided: Decided, record: Record | None) -> Outcome:
    """A decision, with all that was measured."""
    best = tune.space.at(decided.best)
    better = decided.verdict == "better" and isinstance(best, Candidate)
    confirmed = bool(decided.margin)
    return Outcome(
        name=tune.name,
        goal=tune.rules.goal,
        verdict=decided.verdict,
        choices=tune.space.choices(decided.best),
        keys=best.keys if better and isinstance(best, Candidate) else {},
        gain_percent=100 * ratio(decided.gain) if confirmed else None,
        margin_percent=100 * decided.margin if confirmed else None,
        runs=sum(len(block.runs) for block in record.blocks) if record else 0,
        rows=rows(record, tune.space, tune.rules.goal) if record else (),
        record=str(tune.store.path(tune.host.name, tune.instance.name)),
    )


def _server(candidate: Candidate) -> dict[str, Any]:
    return {
        "argv": list(candidate.argv),
        "environment": candidate.environment,
        "properties": list(candidate.properties),
        "need": candidate.need.model_dump(mode="json"),
        "ready_seconds": candidate.ready_timeout_seconds,
    }
