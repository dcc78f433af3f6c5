"""An engine with nothing beside its server: no build, no benchmark, no count of its memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import PurePosixPath
from typing import Any

from corral.catalog.entries import Engine as EngineEntry
from corral.catalog.profile import Profile
from corral.engines.base import KvPair, MemoryRules, UnitNeeds
from corral.engines.benchmark import BenchWords, Sample
from corral.engines.flag_table import FlagTable
from corral.engines.routes import CHAT_ROUTES, Routes
from corral.plan.gateway import HealthCheck
from corral.plan.placement import ResolvedPlacement

# ruff: noqa: ARG002 - what an engine has of these, it says itself


class PlainEngine:
    """What `corral.engines.base.Engine` asks for and an engine may not have."""

    flags: FlagTable
    memory = MemoryRules()
    perplexity_program: str | None = None
    variables_win = False
    unit_needs = UnitNeeds()
    socket_name = "server.sock"
    # What is not decided is closed.
    routes = Routes(open=CHAT_ROUTES, closed={}, health=HealthCheck(path="/health"))
    environment: Mapping[str, str] = {}  # noqa: RUF012
    reads_gguf = False
    tells_speed = False

    def model_path(self, files: Sequence[str]) -> str:
        """The folder of the first file."""
        return str(PurePosixPath(files[0]).parent)

    def fit_argv(
        self, profile: Profile, *, programs: str, model: str, placement: ResolvedPlacement
    ) -> tuple[str, ...] | None:
        """None: no program counts its memory."""
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
        """None: it is not built."""
        return []

    def bench_words(
        self,
        profile: Profile,
        placement: ResolvedPlacement,
        *,
        programs: str,
        model: str,
        repetitions: int,
    ) -> tuple[BenchWords, ...]:
        """None: it cannot be measured."""
        return ()

    def bench_samples(self, program: str, row: dict[str, Any]) -> Iterator[Sample]:
        """Raises KeyError: there is no such program."""
        raise KeyError(program)

    def left_out(self, profile: Profile) -> tuple[str, ...]:
        """Nothing is measured, so nothing is left out."""
        return ()

    def perplexity_words(
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
