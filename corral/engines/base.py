"""What an engine is to the controller: one Protocol, which a folder of this package fulfils."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Protocol

from corral.catalog.entries import Engine as EngineEntry
from corral.catalog.entries import EngineKind
from corral.catalog.profile import KvType, Profile
from corral.engines.benchmark import BenchWords, Sample
from corral.engines.flag_table import FlagTable, Problem, Settings
from corral.engines.routes import Routes
from corral.plan.instance import Endpoint
from corral.plan.placement import ResolvedPlacement

KvPair = tuple[KvType, KvType]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRules:
    """Where engines differ in what corral.fit counts.

    + runtime_bytes: held on each GPU beside the CUDA context and its pools
    + pipelines: several GPUs by layer work on several batches at once, and keep inputs for each
    + host_work_on_every_gpu: what lies on the host is computed on the GPU of its layer, else all
      of it on the first
    + logits_of_whole_batch: room for the logits of each token of a batch, else of one a slot
    + divides_layer_counts: a number of layers whose experts stay on the host is divided among GPUs
    + one_latent_cache: latent attention keeps one cache, so that both types must be equal
    + split_architectures: split mode -> architectures that have it; others are served by layer
    """

    runtime_bytes: int = 0
    pipelines: bool = False
    host_work_on_every_gpu: bool = False
    logits_of_whole_batch: bool = False
    divides_layer_counts: bool = False
    one_latent_cache: bool = False
    split_architectures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitNeeds:
    """What the unit of an engine's server has beyond, or other than, the common one.

    + restart: of systemd.service(5); + stop_seconds: for a server that ends its answers first
    + system_calls, address_families: allowed beside the common ones; + open_files: its limit
    """

    restart: str = "on-failure"
    stop_seconds: int = 60
    system_calls: tuple[str, ...] = ()
    address_families: tuple[str, ...] = ()
    open_files: int | None = None


class Engine(Protocol):
    """One kind of engine. ``kind`` is its name in catalog/engines/*.toml.

    + flags: of its server; + memory: see MemoryRules; + program: its server's file in ``bin``
    + perplexity_program: its name, None where the engine cannot tell perplexity
    + variables_win: whether a variable wins over the same flag on the command line
    + unit_needs: see UnitNeeds; + socket_name: of its unix socket
    + environment: variables of its server's unit, and no others
    + reads_gguf: whether corral.fit can count its memory from the headers of its model
    + routes: what a gateway passes on to its server, and how it asks for its health
    + tells_speed: whether the gate can measure tokens/s by the server's own timings
    """

    kind: EngineKind
    flags: FlagTable
    memory: MemoryRules
    program: str
    perplexity_program: str | None
    variables_win: bool
    unit_needs: UnitNeeds
    socket_name: str
    routes: Routes
    environment: Mapping[str, str]
    reads_gguf: bool
    tells_speed: bool

    def problems(self, profile: Profile, *, gpus: int) -> list[Problem]:
        """All that the engine cannot do for a profile on so many GPUs, 0 without any."""

    def model_path(self, files: Sequence[str]) -> str:
        """What the server is given to load; ``files``: all of the model, weights first."""

    def argv(
        self,
        profile: Profile,
        *,
        program: str,
        model: str,
        alias: str,
        endpoint: Endpoint,
        key_file: str,
        placement: ResolvedPlacement,
        chat_template_file: str | None,
    ) -> tuple[str, ...]:
        """The server's command line; ``model`` is what it is given to load."""

    def fit_argv(
        self, profile: Profile, *, programs: str, model: str, placement: ResolvedPlacement
    ) -> tuple[str, ...] | None:
        """The command that counts its memory on the host, if the engine has one."""

    def keyed_routes(self, profile: Profile) -> tuple[str, ...]:
        """Routes, as ``METHOD path``, that must refuse a request without a key."""

    def cmake_options(
        self,
        engine: EngineEntry,
        *,
        backend: str,
        cuda_architectures: str | None,
        kv_pairs: Set[KvPair],
        native: bool = False,
    ) -> list[str]:
        """``-D`` options of a build, sorted, so that equal builds have equal keys.

        + native: for the processor that builds, and no other
        """

    def bench_words(
        self,
        profile: Profile,
        placement: ResolvedPlacement,
        *,
        programs: str,
        model: str,
        repetitions: int,
    ) -> tuple[BenchWords, ...]:
        """All commands that measure a profile; none where the engine has no such program."""

    def bench_samples(self, program: str, row: dict[str, Any]) -> Iterator[Sample]:
        """What a line of one of those programs says. Raises KeyError for another program."""

    def left_out(self, profile: Profile) -> tuple[str, ...]:
        """Keys of a profile that its server has and the benchmark has not."""

    def perplexity_words(
        self,
        profile: Profile,
        placement: ResolvedPlacement,
        *,
        program: str,
        model: str,
        text: str,
    ) -> tuple[str, ...]:
        """The command that reads ``text``, a path, and tells perplexity."""


__all__ = ["Engine", "KvPair", "MemoryRules", "Problem", "Settings"]
