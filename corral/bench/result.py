"""What a benchmark found, and the lines of the engines' programs that it is read from."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from corral.catalog.entries import EngineKind
from corral.engines import engine_module
from corral.engines.benchmark import Case, Sample, Test
from corral.errors import CorralError
from corral.names import MOMENT, FileName, HostName
from corral.plan.instance import InstancePlan
from corral.schema import Frozen

Moment = Annotated[str, Field(pattern=MOMENT)]
"""It names a file here: nothing else passes."""


def by_depth(case: Case) -> tuple[int, int, bool]:
    """The order of tables: a prompt and then generation, deeper and deeper."""
    return case.sequences, case.depth_tokens, case.test == "generation"


class Measure(Frozen):
    """Tokens/s of all sequences together, one sample a repetition."""

    test: Test
    depth_tokens: int
    sequences: int
    tokens: int
    samples: tuple[float, ...]

    @property
    def case(self) -> Case:
        """What two results are compared by."""
        return Case(self.test, self.depth_tokens, self.sequences)


class Subject(Frozen):
    """What was measured, on what; ``began_at``: UTC, by the host's clock."""

    format: Literal[1] = 1
    host: HostName
    instance: FileName
    began_at: Moment
    seconds: float
    cpu: str
    gpus: tuple[str, ...]
    engine: str
    kind: EngineKind
    release: str
    commit: str
    model: str
    quant: str
    profile: str
    generation: str
    context_tokens_per_slot: int
    slots: int
    repetitions: int

    @property
    def name(self) -> str:
        """As `corral` takes it."""
        return f"{self.host}/{self.instance}"

    @property
    def devices(self) -> str:
        """What it ran on, for people."""
        counts = {gpu: self.gpus.count(gpu) for gpu in self.gpus}
        named = [f"{n} x {gpu}" if n > 1 else gpu for gpu, n in counts.items()]
        return ", ".join(named) or self.cpu


def instance_fields(instance: InstancePlan) -> dict[str, Any]:
    """Fields of a Subject that its instance's plan has."""
    return {
        "instance": instance.name,
        "engine": instance.engine,
        "kind": instance.kind,
        "release": instance.release,
        "model": instance.model,
        "quant": instance.quant,
        "profile": instance.profile,
        "generation": instance.generation,
        "context_tokens_per_slot": instance.context_tokens_per_slot,
        "slots": instance.slots,
    }


class Result(Subject):
    """One benchmark of one instance by the programs of its engine.

    + where: beside the server, or with it stopped
    + left_out: keys of the profile that the benchmark programs do not have
    """

    where: Literal["beside", "stopped"]
    commands: tuple[tuple[str, ...], ...]
    left_out: tuple[str, ...] = ()
    measures: tuple[Measure, ...]

    @property
    def placed(self) -> str:
        """Where it was measured, for people."""
        return self.where


def read_outputs(
    kind: EngineKind,
    commands: Sequence[Sequence[str]],
    outputs: Sequence[Sequence[Sequence[str]]],
    *,
    where: str,
) -> tuple[Measure, ...]:
    """Measures from the lines of each repetition of each command. Raises CorralError."""
    read, found = engine_module(kind).bench_samples, list[Sample]()
    try:
        for argv, runs in zip(commands, outputs, strict=True):
            program = Path(argv[0]).name
            rows = [json.loads(row) for lines in runs for row in lines]
            found += [sample for row in rows for sample in read(program, row)]
        return _gathered(found)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"the benchmark's output cannot be read: {error!r}"
        raise CorralError(where, what, "see that the release is one that Corral knows") from error


def _gathered(found: Iterable[Sample]) -> tuple[Measure, ...]:
    samples: dict[tuple[Case, int], list[float]] = defaultdict(list)
    for one in found:
        samples[one.case, one.tokens] += one.samples
    return tuple(
        Measure(**case._asdict(), tokens=tokens, samples=tuple(values))
        for (case, tokens), values in samples.items()
    )
