"""What the helper answers to each question, as data; its source is files/corral_host.

A helper of a later version may say more, which is dropped.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from corral.host.activation_report import Report
from corral.host.checks import Check
from corral.host.fault import Fault, fault_of_text
from corral.host.state import GpuHost, HostState
from corral.names import MOMENT
from corral.schema import Frozen

# Tokens/s that can be reckoned with.
_Speed = Annotated[float, Field(gt=0, lt=1e12)]


class Told(Frozen):
    """A part of an answer."""

    model_config = ConfigDict(extra="ignore")


class ShardCheck(Told):
    """A shard that was read again."""

    path: str
    ok: bool
    detail: str


class InstalledRelease(Told):
    """A release in the engines' folder of a host."""

    engine: str
    key: str
    folder: str = ""
    size_bytes: int
    installed_at: str | None
    users: tuple[str, ...]
    manifest: dict[str, Any] | None = None


class Manifest(Told):
    """Of an installed release, what is asked for: the flags that its program knows."""

    flags: tuple[str, ...]


class Baseline(Told):
    """Tokens/s that an instance reached, by measure."""

    profile: str
    gpus: tuple[int, ...]
    lengths: tuple[int, ...]
    generated_tokens: int
    samples: dict[str, Annotated[tuple[_Speed, ...], Field(min_length=2)]]
    generation: str
    at: str


class KeptBaseline(Told):
    """The baseline of an instance, if there is one; or why it is not readable."""

    instance: str
    baseline: Baseline | None
    problem: str


class Forgotten(Told):
    """Instances whose baseline was removed."""

    forgotten: tuple[str, ...]


class Started(Told):
    """A job was started, or joined: then it is ``by`` somebody.

    + run: the id of that start, None of a helper of an earlier version
    """

    joined: bool
    by: str | None = None
    run: str | None = None


class Phase(Told):
    """Where an activation is."""

    name: str = ""
    seconds: float = 0
    detail: str = ""


class Foreseen(Told):
    """How an activation would go as things are now.

    + how: None where something blocks it: faults
    + obstacles: the same as texts, all that a helper of an earlier version gives
    """

    how: str | None
    obstacles: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()

    @property
    def against(self) -> str:
        """The first thing that stands against it."""
        faults = self.faults or tuple(map(fault_of_text, self.obstacles))
        return faults[0].what if faults else "it does not say why"


class JobNews(Told):
    """News of a job; ``answer`` is that of its kind, once it ended.

    + run: which start of a job of that name; + offset: bytes of its log; + tail: its last lines
    + unsettled: its activation is begun and not ended; a helper of an earlier version does not say
    + unsettled_run: whose activation that is, this run's or an earlier one's
    + fault: why it failed; error: the same as text, all that a helper of an earlier version gives
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
        """Why it failed."""
        return self.fault or fault_of_text(str(self.error))

    @property
    def last_line(self) -> str:
        """The last one that says something."""
        return next((line.strip() for line in reversed(self.tail) if line.strip()), "")


class Benchmarked(Told):
    """The answer of a job `bench`.

    + commit: of the release that was measured, as it says itself; "" from an earlier version
    + outputs: lines of each repetition of each command
    """

    began_at: Annotated[str, Field(pattern=MOMENT)]
    seconds: float
    where: Literal["beside", "stopped"]
    cpu: str
    gpus: tuple[str, ...]
    commit: str = ""
    outputs: tuple[tuple[tuple[str, ...], ...], ...]


class Packed(Told):
    """An archive that lies on a host."""

    path: str
    size_bytes: int
    sha256: str


class Built(Told):
    """The answer of a job that made an archive."""

    archive: Packed
    manifest: dict[str, Any]


class KeptPlan(Frozen):
    """The plan of an instance that a generation was made from, of whatever version."""

    model_config = ConfigDict(extra="allow")

    argv: list[str] = []


class Kept(Told):
    """A generation on a host."""

    plan: KeptPlan


class FoundInstance(Told):
    """An instance as its host keeps it, whatever an inventory says.

    Source: files/corral_host/observe/kept.py.

    + running_generation: whose command line the process has; + model, quant: of that generation
    + listening: endpoints of the process itself, as a person writes them
    + health: ok, or what its /health said; empty while nothing runs
    + vram_mib: None without GPUs; + plan: of what is installed, of whatever version; or nothing
    """

    unit: str
    active: str
    sub: str
    pid: int
    restarts: int = 0
    since: str
    installed_generation: str | None = None
    proved_generation: str | None = None
    running_generation: str | None = None
    model: str = ""
    quant: str = ""
    listening: tuple[str, ...] = ()
    health: str = ""
    vram_mib: int | None = None
    plan: dict[str, Any] = {}


class FoundInstances(Frozen):
    """All of a host, by name."""

    instances: dict[str, FoundInstance] = {}


class Pinned(Told):
    """A generation is kept under a name, or no longer."""

    pinned: str | None = None
    unpinned: str | None = None
    name: str


ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)
STATE = TypeAdapter(HostState)
GPUS = TypeAdapter(GpuHost)
CHECKS = TypeAdapter(list[Check])
REPORT = TypeAdapter(Report)
REPORTS = TypeAdapter(list[Report])
SHARD_CHECKS = TypeAdapter(list[ShardCheck])
RELEASES = TypeAdapter(list[InstalledRelease])
MANIFEST = TypeAdapter(Manifest)
BASELINES = TypeAdapter(list[KeptBaseline])
FORGOTTEN = TypeAdapter(Forgotten)
STARTED = TypeAdapter(Started)
NEWS = TypeAdapter(JobNews)
BENCHMARKED = TypeAdapter(Benchmarked)
BUILT = TypeAdapter(Built)
KEPT = TypeAdapter(Kept)
FORESEEN = TypeAdapter(Foreseen)
FOUND = TypeAdapter(FoundInstances)
PINNED = TypeAdapter(Pinned)
REMOVED = TypeAdapter(list[str])
