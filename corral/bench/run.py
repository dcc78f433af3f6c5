"""Benchmark of one instance: its plan, the job on its host, the stored result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from corral.bench import job
from corral.bench.document import measured
from corral.bench.result import Result, instance_fields, read_outputs
from corral.bench.store import ResultStore
from corral.catalog.profile import Profile
from corral.engines import engine_module
from corral.engines.benchmark import AS_SUGGESTED, BenchArguments, Lengths
from corral.errors import CorralError
from corral.host.answers import BENCHMARKED
from corral.host.reading import as_answer
from corral.inventory.hosts import Host
from corral.plan.host import HostPlan
from corral.plan.instance import InstancePlan
from corral.planning.unit import memory_policy

Where = Literal["beside", "stop"]


@dataclass(frozen=True)
class Benchmark:
    """One instance of a host, and how it shall be measured.

    + plan: of the whole host, or what of it the host keeps
    + where: beside the server, or with it stopped meanwhile
    """

    host: Host
    plan: HostPlan
    instance: InstancePlan
    where: Where
    repetitions: int
    lengths: Lengths = AS_SUGGESTED

    @property
    def name(self) -> str:
        """HOST/INSTANCE, as arguments of `corral`."""
        return f"{self.host.name}/{self.instance.name}"

    @property
    def profile(self) -> Profile:
        """As it was when the instance was planned. Raises CorralError where nobody kept that."""
        if self.instance.settings is None:
            what = "the plan that is kept of it there does not say what its profile was"
            step = "fix the mistake that keeps it from being planned, then ask again"
            raise CorralError(self.name, what, step)
        return self.instance.settings

    @property
    def commands(self) -> tuple[BenchArguments, ...]:
        """Command lines on the host; none where the engine has no benchmark program."""
        return engine_module(self.instance.kind).bench_arguments(
            self.profile,
            self.instance.placement,
            programs=f"{self.instance.release_folder}/bin",
            model=self.instance.model_path,
            repetitions=self.repetitions,
            lengths=self.lengths,
        )

    def refuse_unmeasurable(self) -> None:
        """Raise CorralError where the engine has no benchmark program, or not for the lengths."""
        if not self.commands:
            what = f"cannot be measured: {self.instance.kind} has no benchmark program"
            step = f"`corral verify {self.host.name}` tells whether it serves"
            raise CorralError(self.name, what, step)

    def spec(self) -> dict[str, Any]:
        """What the job works from (files/corral_host/bench/measure.py)."""
        return {
            **measured(self.host, self.plan, self.instance),
            "where": self.where,
            "properties": memory_policy(self.profile),
            "commands": [words._asdict() for words in self.commands],
        }

    def result(self, answer: dict[str, Any]) -> Result:
        """The job's answer with all that belongs to it. Raises CorralError."""
        measured = as_answer(BENCHMARKED, answer, where=self.name)
        argvs = tuple(words.argv for words in self.commands)
        return Result(
            host=self.host.name,
            **instance_fields(self.instance),
            **measured.model_dump(exclude={"outputs"}),
            repetitions=self.repetitions,
            commands=argvs,
            left_out=engine_module(self.instance.kind).left_out(self.profile),
            measures=read_outputs(self.instance.kind, argvs, measured.outputs, where=self.name),
        )


def run(benchmark: Benchmark, store: ResultStore, print_line: job.PrintLine) -> Result:
    """Run a benchmark, join a running one, or fetch its result; store it. Raises CorralError."""
    benchmark.refuse_unmeasurable()
    job.refuse_other_helper(benchmark.host, benchmark.plan)
    question = job.Question(
        host=benchmark.host,
        helper=benchmark.plan.paths.helper,
        instance=benchmark.instance.name,
        kind="bench",
        spec=benchmark.spec(),
    )
    result = benchmark.result(job.answer_of(question, store, print_line))
    print_line(f"kept in {store.save(result)}")
    store.forget(result.host, result.instance)
    return result
