"""The Protocol of an engine on the controller; each folder of this package implements it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from corral.catalog.entries import Engine as EngineEntry
from corral.catalog.entries import EngineKind, WeightsFormat
from corral.catalog.profile import KvType, Profile
from corral.engines.benchmark import AS_SUGGESTED, BenchArguments, Lengths, Sample
from corral.engines.flag_table import FlagTable, Problem, Settings
from corral.engines.load import LoadCase, LoadCommand
from corral.engines.memory_count import MemoryCount
from corral.engines.routes import Routes
from corral.engines.series import Series
from corral.engines.tuning import Dimension, Machine
from corral.model_files.model import SafetensorsModel
from corral.plan.placement import ResolvedPlacement

KvPair = tuple[KvType, KvType]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRules:
    """Differences between engines in the memory that corral.fit counts.

    + runtime_bytes: held on each GPU beside the CUDA context and its pools
    + pipelines: with split mode layer, GPUs work on several batches at once and keep inputs of each
    + fuses_experts: gate and up of experts are one operation, which needs both and keeps neither
    + copies_in_pools: a quantized cache is copied to f16 in CUDA's pools, not the compute buffer
    + logits_of_whole_batch: space for the logits of each token of a batch, else of one per slot
    + output_layer_last: gpu_layers counts the output layer after all others, else before them
    + splits_by_size: with split mode layer, GPUs share the layers by their sizes, else their number
    + divides_layer_counts: the number of layers with experts in host memory is divided among GPUs
    + overrides_first: of tensor_overrides and experts in host memory, the former win
    + shared_cache: all slots share one KV cache, which attention sees whole
    + one_latent_cache: latent attention keeps one cache, so that both types must be equal
    + latent_by_mode: latent attention is computed as mla_mode says, whatever keys a file has
    + split_architectures: split mode -> architectures that support it; others fall back to layer
    + unsplit_architectures: split mode -> architectures with which the server ends at its start
    + unknown_architectures: of those that Corral counts, the ones that it cannot load
    + mtp_architectures: architectures whose MTP block drafts; None for all that have one
    + no_mtp_architectures: architectures whose MTP block would end the server at its start
    + draft_kv_type: type of the MTP block's KV cache, None for the profile's
    + draft_context_per_slot: each slot has a context for drafts, beside the MTP block's own cache
    """

    runtime_bytes: int = 0
    pipelines: bool = False
    fuses_experts: bool = False
    copies_in_pools: bool = False
    logits_of_whole_batch: bool = False
    output_layer_last: bool = False
    splits_by_size: bool = False
    divides_layer_counts: bool = False
    overrides_first: bool = False
    shared_cache: bool = False
    one_latent_cache: bool = False
    latent_by_mode: bool = False
    split_architectures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unsplit_architectures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unknown_architectures: tuple[str, ...] = ()
    mtp_architectures: tuple[str, ...] | None = None
    no_mtp_architectures: tuple[str, ...] = ()
    draft_kv_type: KvType | None = None
    draft_context_per_slot: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitNeeds:
    """Differences of an engine's unit from the common one.

    + restart: Restart= of systemd.service(5); + stop_seconds: time to finish requests at a stop
    + start_seconds: time to start, beside the time to read the weights
    + system_calls, address_families: allowed beside the common ones, with a unix socket, too
    + cpu_system_calls: allowed without GPUs
    + open_files: limit; + own_ports: its processes talk to each other on ports of their choice
    + home_in_cache: it writes to its home, which is then the instance's cache folder
    + executable_memory_on_cpu: without GPUs it writes machine code and runs it
    """

    restart: str = "on-failure"
    start_seconds: int = 300
    stop_seconds: int = 60
    system_calls: tuple[str, ...] = ()
    cpu_system_calls: tuple[str, ...] = ()
    address_families: tuple[str, ...] = ()
    open_files: int | None = None
    own_ports: bool = False
    home_in_cache: bool = False
    executable_memory_on_cpu: bool = False


class ParallelChoice(NamedTuple):
    """How GPUs share a model, by keys of a profile."""

    tensor_parallel: int = 1
    data_parallel: int = 1
    expert_parallel: bool = False


class KeyConfig(NamedTuple):
    """A file in the server's own format with its keys, made before each start.

    + path: of that file; + command: makes it as the server's user, and fails without a key
    """

    path: str
    command: tuple[str, ...]


class Engine(Protocol):
    """One kind of engine; ``kind``: its name in catalog/engines/*.toml.

    + flags: flags of its server; + memory: see MemoryRules; + program: file of its server in bin/
    + perplexity_program: file name, None where the engine cannot measure perplexity
    + variables_win: whether an environment variable overrides the same flag
    + packages: of the distribution that its releases need to run, beside what makes them
    + unit_needs: see UnitNeeds; + socket_name: file name of its unix socket
    + environment: variables of every unit of the engine; ``variables`` has all of a profile
    + weights: format of the weights that it loads. The memory of GGUF is counted by corral.fit with
      ``memory``, that of safetensors by ``count_memory``
    + routes: routes that a gateway opens, and its health check
    + reports_speed: whether the gate can measure its tokens/s; + series: of its metrics
    + trial_arguments: arguments for a start with dummy weights, from configuration files alone;
      empty where it has no such start
    + load_fields: fields of a completion request for an answer of exact length, without a cache
    """

    kind: EngineKind
    flags: FlagTable
    memory: MemoryRules
    program: str
    perplexity_program: str | None
    variables_win: bool
    packages: tuple[str, ...]
    unit_needs: UnitNeeds
    socket_name: str
    routes: Routes
    environment: Mapping[str, str]
    weights: WeightsFormat
    reports_speed: bool
    series: Series
    trial_arguments: tuple[str, ...]
    load_fields: Mapping[str, Any]

    def problems(self, profile: Profile, *, gpus: int) -> list[Problem]:
        """Everything in a profile that the engine cannot do; ``gpus``: 0 for none."""

    def variables(self, profile: Profile) -> dict[str, str]:
        """All variables that the engine adds to a profile's unit."""

    def key_config(self, *, program: str, key_file: str, folder: str) -> KeyConfig | None:
        """The file that the server reads instead of the key file; None where it reads that.

        + program: the server's program; + folder: of the unit in /run, gone when it stops
        """

    def release_problem(self, pins: Mapping[str, str]) -> str | None:
        """Why a Python environment must not serve; ``pins``: distribution -> version."""

    def key_problem(self, key: str) -> str | None:
        """Why the server cannot take a key, without the key; None where it can."""

    def model_path(self, files: Sequence[str]) -> str:
        """The path that the server loads; ``files``: all files of the model, weights first."""

    def argv(self, program: str, settings: Settings) -> tuple[str, ...]:
        """The server's command line; ``program``: path of the server."""

    def count_memory(
        self, model: SafetensorsModel, profile: Profile, *, gpu_memory_mib: Sequence[int]
    ) -> MemoryCount:
        """The memory need with weights in safetensors.

        + gpu_memory_mib: memory of each GPU of the instance; empty without GPUs
        """

    def tuning_dimensions(self, profile: Profile, machine: Machine) -> tuple[Dimension, ...]:
        """What `corral tune` may change, the largest effect first; none: nothing is tuned."""

    def parallel_choices(self, gpus: int) -> Sequence[ParallelChoice]:
        """The ways in which ``gpus`` GPUs can share a model; none: `corral fit` decides."""

    def fit_argv(
        self, profile: Profile, *, programs: str, model: str, placement: ResolvedPlacement
    ) -> tuple[str, ...] | None:
        """The command that reports its memory need on the host, or None."""

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

        + native: for the building host's processor only
        """

    def bench_arguments(
        self,
        profile: Profile,
        placement: ResolvedPlacement,
        *,
        programs: str,
        model: str,
        repetitions: int,
        lengths: Lengths = AS_SUGGESTED,
    ) -> tuple[BenchArguments, ...]:
        """All commands that benchmark a profile; none where the engine has no such program.

        Raises CorralError for lengths that it cannot measure.
        """

    def bench_samples(self, program: str, row: dict[str, Any]) -> Iterator[Sample]:
        """Samples in a line of a benchmark program. Raises KeyError for an unknown program."""

    def load_command(
        self, case: LoadCase, *, programs: str, model: str, alias: str, url: str, seed: int
    ) -> LoadCommand | None:
        """The engine's own load generator, run on the host; None: the OpenAI client of Corral.

        + model: path that the server loads; + url: of the server, such as ``http://127.0.0.1:8000``
        + seed: another one for each run, so that no prompt is in a cache
        """

    def left_out(self, profile: Profile) -> tuple[str, ...]:
        """Keys of a profile that its server supports and the benchmark does not."""

    def perplexity_arguments(
        self,
        profile: Profile,
        placement: ResolvedPlacement,
        *,
        program: str,
        model: str,
        text: str,
    ) -> tuple[str, ...]:
        """The command that measures perplexity on ``text``, a path."""


__all__ = [
    "Engine",
    "KeyConfig",
    "KvPair",
    "MemoryCount",
    "MemoryRules",
    "ParallelChoice",
    "Problem",
    "Series",
    "Settings",
    "WeightsFormat",
]
