"""Base of an engine with a server only: no build, no benchmark, no memory count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import PurePosixPath
from typing import Any

from corral.catalog.entries import Engine as EngineEntry
from corral.catalog.profile import Profile
from corral.engines.base import (
    KeyConfig,
    KvPair,
    MemoryCount,
    MemoryRules,
    ParallelChoice,
    Series,
    UnitNeeds,
    WeightsFormat,
)
from corral.engines.benchmark import AS_SUGGESTED, BenchArguments, Lengths, Sample
from corral.engines.flag_table import FlagTable
from corral.engines.load import LoadCase, LoadCommand
from corral.engines.routes import CHAT_ROUTES, Routes
from corral.engines.tuning import Dimension, Machine
from corral.model_files.model import SafetensorsModel
from corral.plan.gateway import HealthCheck
from corral.plan.placement import InstanceNeed, ResolvedPlacement

# ruff: noqa: ARG002 - defaults that an engine overrides


class PlainEngine:
    """Defaults for the optional parts of `corral.engines.base.Engine`."""

    flags: FlagTable
    memory = MemoryRules()
    perplexity_program: str | None = None
    variables_win = False
    packages: tuple[str, ...] = ()
    unit_needs = UnitNeeds()
    socket_name = "server.sock"
    # What is not decided is closed.
    routes = Routes(open=CHAT_ROUTES, closed={}, health=HealthCheck(path="/health"))
    environment: Mapping[str, str] = {}  # noqa: RUF012
    weights: WeightsFormat = "none"
    reports_speed = False
    series = Series()
    trial_arguments: tuple[str, ...] = ()
    load_fields: Mapping[str, Any] = {}  # noqa: RUF012

    def variables(self, profile: Profile) -> dict[str, str]:
        """Those of every unit, and those that keys of the profile decide."""
        return {**self.environment, **self.flags.environment(profile)}

    def key_config(self, *, program: str, key_file: str, folder: str) -> KeyConfig | None:
        """None: the server reads the key file."""
        return None

    def release_problem(self, pins: Mapping[str, str]) -> str | None:
        """None: every version may serve."""
        return None

    def key_problem(self, key: str) -> str | None:
        """None: it takes every key of the store."""
        return None

    def model_path(self, files: Sequence[str]) -> str:
        """The folder of the first file."""
        return str(PurePosixPath(files[0]).parent)

    def count_memory(
        self, model: SafetensorsModel, profile: Profile, *, gpu_memory_mib: Sequence[int]
    ) -> MemoryCount:
        """Unknown."""
        return MemoryCount(need=InstanceNeed(unknown="the engine does not count its memory"))

    def tuning_dimensions(self, profile: Profile, machine: Machine) -> tuple[Dimension, ...]:
        """None."""
        return ()

    def parallel_choices(self, gpus: int) -> Sequence[ParallelChoice]:
        """None."""
        return ()

    def fit_argv(
        self, profile: Profile, *, programs: str, model: str, placement: ResolvedPlacement
    ) -> tuple[str, ...] | None:
        """None: no program reports its memory need."""
        return None

    def cmake_options(
        self,
        engine: EngineEntry,
        *,
        backend: str,
        cuda_architectures: str | None,
        kv_pairs: Set[KvPair],
        native: bool = False,
    ) -> list[str]:
        """Empty: it is not built."""
        return []

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
        """Empty: it cannot be benchmarked."""
        return ()

    def bench_samples(self, program: str, row: dict[str, Any]) -> Iterator[Sample]:
        """Raises KeyError: there is no such program."""
        raise KeyError(program)

    def load_command(
        self, case: LoadCase, *, programs: str, model: str, alias: str, url: str, seed: int
    ) -> LoadCommand | None:
        """None: it has no load generator."""
        return None

    def left_out(self, profile: Profile) -> tuple[str, ...]:
        """Empty: nothing is measured."""
        return ()

    def perplexity_arguments(
        self,
        profile: Profile,
        placement: ResolvedPlacement,
        *,
        program: str,
        model: str,
        text: str,
    ) -> tuple[str, ...]:
        """Raises KeyError: there is no such program."""
        raise KeyError(program)
