"""One module per kind of engine: its flags, its routes, its build."""

from __future__ import annotations

from collections.abc import Set
from typing import Protocol

from corral.catalog.entries import Engine, EngineKind
from corral.catalog.profile import KvType, Profile
from corral.engines import ik_llama_cpp, llama_cpp
from corral.engines.base import Problem
from corral.errors import CorralError
from corral.plan.host import Endpoint, ResolvedPlacement

KvPair = tuple[KvType, KvType]


class EngineModule(Protocol):
    """What the module of each kind offers."""

    PROGRAM: str

    def problems(self, profile: Profile, *, gpus: int) -> list[Problem]:
        """All that the engine cannot do for a profile on so many GPUs."""

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
        """The command line; ``model`` is the first shard."""

    def fit_argv(
        self, profile: Profile, *, programs: str, model: str, placement: ResolvedPlacement
    ) -> tuple[str, ...] | None:
        """The command that counts its memory on the host, if the engine has one."""

    def keyed_routes(self, profile: Profile) -> tuple[str, ...]:
        """Routes, as ``METHOD path``, that must refuse a request without a key."""

    def cmake_options(
        self,
        engine: Engine,
        *,
        backend: str,
        cuda_architectures: str | None,
        kv_pairs: Set[KvPair],
    ) -> list[str]:
        """``-D`` options of a build, sorted, so that equal builds have equal keys."""


_MODULES: dict[EngineKind, EngineModule] = {
    "llama.cpp": llama_cpp,
    "ik_llama.cpp": ik_llama_cpp,
}


def engine_module(kind: EngineKind) -> EngineModule:
    """The module for a kind of engine."""
    return _MODULES[kind]


def refuse_impossible(
    profile: Profile, *, engine: str, kind: EngineKind, gpus: int, where: str
) -> None:
    """Raise CorralError with everything that the engine cannot do; ``where`` names the profile."""
    problems = engine_module(kind).problems(profile, gpus=gpus)
    if problems:
        raise CorralError(
            f"{where}, engine {engine}",
            "; ".join(problem.what for problem in problems),
            "; ".join(dict.fromkeys(problem.next_step for problem in problems)),
        )


def resolve_placement(profile: Profile, *, gpus: int) -> ResolvedPlacement:
    """What a profile says about placement, without a look at the model; ``gpus`` 0 is none.

    ``auto`` is decided elsewhere, from the model's header; here it keeps all experts on the host.
    """
    if gpus == 0 or profile.placement == "cpu":
        return ResolvedPlacement(gpu_layers=0)
    return ResolvedPlacement(
        gpu_layers=profile.gpu_layers,
        experts_on_cpu=profile.placement in ("experts-on-cpu", "auto"),
        cpu_moe_layers=profile.cpu_moe_layers or 0,
        tensor_overrides=profile.tensor_overrides,
        tensor_split=profile.tensor_split or (),
    )
