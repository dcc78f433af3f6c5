"""Answers of the helper to each command, as data; files/corral_host makes them.

Keys that a helper of a later version adds are ignored.
"""

from __future__ import annotations

import re
import statistics
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from corral.host.activation_report import Report
from corral.host.checks import Check
from corral.host.fault import Fault, fault_of_text
from corral.host.state import GpuHost, HostState
from corral.names import MOMENT
from corral.schema import Frozen

# Plausible tokens/s.
_Speed = Annotated[float, Field(gt=0, lt=1e12)]


class HostAnswer(Frozen):
    """Base of an answer and its parts."""

    model_config = ConfigDict(extra="ignore")


class ShardCheck(HostAnswer):
    """The result of rehashing a shard."""

    path: str
    ok: bool
    detail: str


class DriftRow(HostAnswer):
    """A difference between a host and what was last deployed there.

    + where: an instance, or a part of the host; + next_step: may name HOST
    """

    where: str
    planned: str
    found: str
    next_step: str

    def next_for(self, host: str) -> str:
        """The next step with the name of the host."""
        return re.sub(r"\bHOST\b", lambda _: host, self.next_step)


class InstalledRelease(HostAnswer):
    """A release in the engines folder of a host."""

    engine: str
    key: str
    folder: str = ""
    size_bytes: int
    installed_at: str | None
    users: tuple[str, ...]
    manifest: dict[str, Any] | None = None


class Manifest(HostAnswer):
    """The used part of an installed release's manifest: the flags that its program knows."""

    flags: tuple[str, ...]


class Baseline(HostAnswer):
    """Tokens/s that an instance reached, by measurement."""

    profile: str
    gpus: tuple[int, ...]
    lengths: tuple[int, ...]
    generated_tokens: int
    samples: dict[str, Annotated[tuple[_Speed, ...], Field(min_length=2)]]
    generation: str
    at: str

    @property
    def means(self) -> dict[str, float]:
        """Measure -> mean tokens/s."""
        return {measure: statistics.fmean(found) for measure, found in self.samples.items()}


class StoredBaseline(HostAnswer):
    """The baseline of an instance, if any; ``problem``: why it is not readable, or empty."""

    instance: str
    baseline: Baseline | None
    problem: str


class Forgotten(HostAnswer):
    """Instances whose baseline was removed."""

    forgotten: tuple[str, ...]


class Started(HostAnswer):
    """A job was started, or joined; + by: the operator who started a joined one.

    + run: id of the job's run, None from a helper of an earlier version
    """

    joined: bool
    by: str | None = None
    run: str | None = None


class Phase(HostAnswer):
    """Current phase of an activation."""

    name: str = ""
    seconds: float = 0
    detail: str = ""


class ActivationForecast(HostAnswer):
    """How an activation would proceed now.

    + how: None where ``faults`` block it
    + obstacles: faults as text, all that a helper of an earlier version sends
    """

    how: str | None
    obstacles: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()

    @property
    def obstacle(self) -> str:
        """The first fault that blocks the activation."""
        faults = self.faults or tuple(map(fault_of_text, self.obstacles))
        return faults[0].what if faults else "the host does not say why"


class JobStatus(HostAnswer):
    """Status of a job; ``answer``: the answer of its kind, once it ended.

    + run: id of the job's run; + offset: bytes of its log; + tail: last lines of its log
    + unsettled: its activation began and did not end; True from a helper of an earlier version
    + unsettled_run: run of that activation, this one or an earlier one
    + fault: why it failed; error: as text, all that a helper of an earlier version sends
    """

    running: bool
    ok: bool
    error: str | None = ""
    fault: Fault | None = None
    answer: dict[str, Any] | None = None
    offset: int
    tail: tuple[str, ...]
    phase: Phase | None = None
    unsettled: bool = True
    run: str | None = None
    unsettled_run: str | None = None

    @property
    def wrong(self) -> Fault:
        """Why the job failed."""
        return self.fault or fault_of_text(str(self.error))

    @property
    def last_line(self) -> str:
        """The last line of its log that is not blank."""
        return next((line.strip() for line in reversed(self.tail) if line.strip()), "")


class Benchmarked(HostAnswer):
    """The answer of a job `bench`.

    + commit: commit of the measured release, by its manifest; "" from an earlier version
    + outputs: lines of each repetition of each command
    """

    began_at: Annotated[str, Field(pattern=MOMENT)]
    seconds: float
    where: Literal["beside", "stopped"]
    cpu: str
    gpus: tuple[str, ...]
    commit: str = ""
    outputs: tuple[tuple[tuple[str, ...], ...], ...]


_Positive = Annotated[float, Field(gt=0, lt=1e12)]


class LengthFigures(HostAnswer):
    """One request at a time, with a prompt of this length: time to the first token, and tokens/s
    of the others.
    """

    prompt_tokens: Annotated[int, Field(gt=0)]
    first_token_seconds: _Positive
    answer_tokens_per_second: _Positive

    @property
    def prompt_tokens_per_second(self) -> float:
        """Speed of the prompt, with the first token of the answer."""
        return self.prompt_tokens / self.first_token_seconds


class AtOnceFigures(HostAnswer):
    """Several requests at once: mean time to the first token, and tokens/s of all answers."""

    requests: int
    first_token_seconds: _Positive
    tokens_per_second: _Positive


class TuneFigures(HostAnswer):
    """The figures of one run of `tune`."""

    lengths: Annotated[tuple[LengthFigures, ...], Field(min_length=1)]
    load: AtOnceFigures


class GpuMoment(HostAnswer):
    """A GPU at a moment; None for what it does not report."""

    index: str | None = None
    clock_sm_mhz: float | None = None
    clock_memory_mhz: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    throttled: str | None = None


class Moment(HostAnswer):
    """The state of a machine at a moment; None for what it does not report."""

    cpu_mhz: float | None = None
    cpu_celsius: float | None = None
    load: float = 0
    gpus: tuple[GpuMoment, ...] = ()


class TunedRun(HostAnswer):
    """One run; ``server``: the number of its settings; ``figures``: None where it failed."""

    server: int
    at_seconds: float
    seconds: float
    figures: TuneFigures | None
    error: str = ""
    before: Moment = Moment()
    after: Moment = Moment()


class Tuned(HostAnswer):
    """The answer of a job `tune`; see Benchmarked."""

    began_at: Annotated[str, Field(pattern=MOMENT)]
    seconds: float
    where: Literal["beside", "stopped"]
    cpu: str
    gpus: tuple[str, ...]
    commit: str = ""
    runs: tuple[TunedRun, ...]


class Packed(HostAnswer):
    """An archive on a host."""

    path: str
    size_bytes: int
    sha256: str


class Built(HostAnswer):
    """The answer of a job that created an archive."""

    archive: Packed
    manifest: dict[str, Any]


class Shared(HostAnswer):
    """The answer of a job `share`: digests of the archives that came from other hosts."""

    arrived: list[str]


class StoredPlan(Frozen):
    """The plan that a generation was made from, of any version."""

    model_config = ConfigDict(extra="allow")

    argv: list[str] = []


class StoredGeneration(HostAnswer):
    """A generation on a host."""

    plan: StoredPlan


class ObservedInstance(HostAnswer):
    """An instance as observed on its host, whatever an inventory says.

    Source: files/corral_host/observe/kept.py.

    + at_boot: it starts with the host
    + running_generation: generation whose command line the process has; + model, quant: of it
    + listening: endpoints of the process itself, for display
    + health: ok, or the answer of /health; empty while nothing runs
    + weights_problem: why files of its model are absent, with the next step; empty if none is
    + vram_mib: None without GPUs; + plan: installed plan, of any version; empty without one
    + watch: what is wrong with it, and what its host did about it; empty once it serves again
    """

    unit: str
    active: str
    sub: str
    pid: int
    restarts: int = 0
    since: str
    at_boot: bool = False
    installed_generation: str | None = None
    proved_generation: str | None = None
    running_generation: str | None = None
    model: str = ""
    quant: str = ""
    listening: tuple[str, ...] = ()
    health: str = ""
    weights_problem: str = ""
    vram_mib: int | None = None
    watch: str = ""
    plan: dict[str, Any] = {}


class GpuFigures(HostAnswer):
    """Use of a GPU at this moment; None for values that it does not report."""

    index: int
    name: str | None = None
    uuid: str | None = None
    memory_total_mib: int | None = None
    memory_used_mib: int | None = None
    utilization_percent: int | None = None
    temperature_celsius: int | None = None


class GpuUse(GpuFigures):
    """A GPU as its host tells of it.

    + units: unit, or a program of none -> MiB that it holds, None where the driver does not say
    """

    units: dict[str, int | None] = {}


class GpuHolder(Frozen):
    """Who holds memory of a GPU; + predicted_mib: by the plan of its instance."""

    instance: str | None
    unit: str
    held_mib: int | None
    predicted_mib: int | None


class ObservedInstances(HostAnswer):
    """All instances of a host, by name, and the use of its GPUs.

    + strange_units: services called corral-* that start at boot and are no instances
    + gpu_problem: why nvidia-smi does not tell of all GPUs, or empty
    """

    instances: dict[str, ObservedInstance]
    strange_units: tuple[str, ...] = ()
    gpus: tuple[GpuUse, ...] = ()
    gpu_problem: str = ""


class Pinned(HostAnswer):
    """A generation was pinned under a name, or unpinned."""

    pinned: str | None = None
    unpinned: str | None = None
    name: str


class WeightsFile(HostAnswer):
    """A file of weights on a host.

    + model, quant: empty where no generation of the host says it; + users: who needs it
    + last_used: time in UTC, "now", or empty; + file: equal for two names of one file
    """

    path: str
    model: str = ""
    quant: str = ""
    size_bytes: int
    sha256: str = ""
    proved: bool = True
    users: tuple[str, ...] = ()
    last_used: str = ""
    file: str = ""


class Disk(HostAnswer):
    """The file system of the folder of weights."""

    folder: str
    total_bytes: int
    free_bytes: int


class HostWeights(HostAnswer):
    """All weights of a host.

    + problem: why they cannot be seen, or empty; + next_step: what then helps
    + size_bytes: without second names of a file
    + unneeded_bytes: what pruning frees; + partial_bytes: of downloads that have not ended
    """

    files: tuple[WeightsFile, ...] = ()
    problem: str = ""
    next_step: str = ""
    size_bytes: int = 0
    unneeded_bytes: int = 0
    partial_bytes: int = 0
    disk: Disk


class PrunedWeights(HostAnswer):
    """Files that were removed, and what that freed."""

    removed: tuple[str, ...]
    freed_bytes: int


class AdoptedFile(HostAnswer):
    """A file that was put in place, and where it was found."""

    path: str
    source: str


class AdoptedWeights(HostAnswer):
    """Adopted files; ``files``: looked at; ``missing``: planned files that are still missing."""

    adopted: tuple[AdoptedFile, ...]
    files: int
    missing: tuple[str, ...] = ()


class RemovedInstance(HostAnswer):
    """An instance was removed; ``requests_cut``: those that did not end in time."""

    removed: str
    requests_cut: int


class RemovedAll(HostAnswer):
    """Folders that were removed; ``mounts``: what is mounted in them, which stays."""

    removed: tuple[str, ...]
    mounts: tuple[str, ...] = ()


ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)
STATE = TypeAdapter(HostState)
GPUS = TypeAdapter(GpuHost)
CHECKS = TypeAdapter(list[Check])
REPORT = TypeAdapter(Report)
REPORTS = TypeAdapter(list[Report])
DRIFT = TypeAdapter(list[DriftRow])
SHARD_CHECKS = TypeAdapter(list[ShardCheck])
RELEASES = TypeAdapter(list[InstalledRelease])
MANIFEST = TypeAdapter(Manifest)
BASELINES = TypeAdapter(list[StoredBaseline])
FORGOTTEN = TypeAdapter(Forgotten)
STARTED = TypeAdapter(Started)
JOB_STATUS = TypeAdapter(JobStatus)
BENCHMARKED = TypeAdapter(Benchmarked)
TUNED = TypeAdapter(Tuned)
BUILT = TypeAdapter(Built)
SHARED = TypeAdapter(Shared)
STORED_GENERATION = TypeAdapter(StoredGeneration)
FORECAST = TypeAdapter(ActivationForecast)
OBSERVED = TypeAdapter(ObservedInstances)
PINNED = TypeAdapter(Pinned)
WEIGHTS = TypeAdapter(HostWeights)
ADOPTED_WEIGHTS = TypeAdapter(AdoptedWeights)
PRUNED_WEIGHTS = TypeAdapter(PrunedWeights)
REMOVED_INSTANCE = TypeAdapter(RemovedInstance)
REMOVED_ALL = TypeAdapter(RemovedAll)
REMOVED = TypeAdapter(list[str])
