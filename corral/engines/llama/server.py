"""The common part of both llama-server engines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from corral.catalog.entries import Engine, EngineKind
from corral.catalog.profile import Profile, SplitMode
from corral.engines.base import KvPair, Series, WeightsFormat
from corral.engines.benchmark import Case, Sample
from corral.engines.flag_table import Problem, Settings
from corral.engines.llama import tuning
from corral.engines.llama.routes import ROUTES
from corral.engines.llama.rows import CACHE, DEVICES, LOADING, OWN, ROPE, THREADS
from corral.engines.plain import PlainEngine
from corral.engines.tuning import Dimension, Machine
from corral.plan.placement import ResolvedPlacement

# The context of published perplexity figures. The text must have twice as many tokens.
_PERPLEXITY_TOKENS = "512"
# Without routes that are public even with a key: /health and /v1/health of both engines.
_KEYED_ROUTES = (
    "GET /props",
    "GET /slots",
    "POST /v1/chat/completions",
    "POST /v1/completions",
    "POST /completion",
    "POST /tokenize",
)


class LlamaServer(PlainEngine):
    """A llama-server and the programs beside it."""

    kind: EngineKind
    program = "llama-server"
    perplexity_program: str | None = "llama-perplexity"
    socket_name = "llama.sock"
    routes = ROUTES
    environment: Mapping[str, str] = {"GGML_NO_BACKTRACE": "1"}  # noqa: RUF012
    weights: WeightsFormat = "gguf"
    reports_speed = True
    # Source: tools/server/README.md of llama.cpp, "GET /metrics".
    series = Series(
        generated_tokens="llamacpp:tokens_predicted_total",
        generating_seconds="llamacpp:tokens_predicted_seconds_total",
        running="llamacpp:requests_processing",
        waiting="llamacpp:requests_deferred",
    )
    # Its memory is counted from GGUF headers instead.
    trial_arguments: tuple[str, ...] = ()
    load_fields: Mapping[str, Any] = {"ignore_eos": True, "cache_prompt": False}  # noqa: RUF012
    more_keyed_routes: tuple[str, ...] = ()
    # Modes with which several GPUs share a model.
    shared_modes: tuple[SplitMode, ...] = ("layer",)

    def model_path(self, files: Sequence[str]) -> str:
        """The first shard; the server finds the others by its name."""
        return files[0]

    def tuning_dimensions(self, profile: Profile, machine: Machine) -> tuple[Dimension, ...]:
        """Placement, batches, threads, drafts, KV types, and how GPUs share a model."""
        return tuning.tuning_dimensions(profile, machine, split_modes=self.shared_modes)

    def argv(self, program: str, settings: Settings) -> tuple[str, ...]:
        """The command line; ``model`` is the first shard."""
        return (program, *self.flags.arguments(settings), *settings.profile.extra_flags)

    def cmake_options(
        self,
        engine: Engine,
        *,
        backend: str,
        cuda_architectures: str | None,
        kv_pairs: Set[KvPair],
        native: bool = False,
    ) -> list[str]:
        """``-D`` options of a build, sorted, so that equal builds have equal keys.

        + kv_pairs: types of K and V on a GPU, see ``kernel_options``
        """
        options = _common_options(engine.cmake_options, native=native)
        if backend == "cuda":
            options |= engine.cmake_options_cuda
            options["CMAKE_CUDA_ARCHITECTURES"] = cuda_architectures or "native"
            options |= self.kernel_options(kv_pairs)
        return [f"-D{name}={value}" for name, value in sorted(options.items())]

    def kernel_options(self, kv_pairs: Set[KvPair]) -> dict[str, str]:
        """Options for attention kernels beyond the default ones."""
        raise NotImplementedError

    def keyed_routes(self, profile: Profile) -> tuple[str, ...]:
        """Routes, as ``METHOD path``, that must refuse a request without a key."""
        metrics = ("GET /metrics",) if profile.metrics else ()
        return (*self.more_keyed_routes, *_KEYED_ROUTES, *metrics)

    def perplexity_arguments(
        self,
        profile: Profile,
        placement: ResolvedPlacement,
        *,
        program: str,
        model: str,
        text: str,
    ) -> tuple[str, ...]:
        """One sequence at a time: a larger batch would hold several sequences and their caches."""
        arguments = [program, "--model", model, "--file", text, "--ctx-size", _PERPLEXITY_TOKENS]
        arguments += ["--batch-size", _PERPLEXITY_TOKENS, "--ubatch-size", _PERPLEXITY_TOKENS]
        settings = Settings(profile=profile, placement=placement)
        parts = (CACHE, ROPE, THREADS, DEVICES, LOADING, OWN)
        return (*arguments, *self.flags.arguments(settings, *parts))


def _common_options(options: Mapping[str, str], *, native: bool) -> dict[str, str]:
    """Options of a catalog entry; one with GGML_NATIVE gets it switched on for a native build."""
    own = {"GGML_NATIVE": "ON"} if native and "GGML_NATIVE" in options else {}
    return {**options, **own}


def gpu_problems(profile: Profile, gpus: int) -> list[Problem]:
    """Keys that name more GPUs than the instance has; ``gpus``: 0 for none."""
    problems = []
    if gpus and profile.tensor_split and len(profile.tensor_split) > gpus:
        what = f"tensor_split has {len(profile.tensor_split)} shares for {_count(gpus)}"
        problems.append(Problem(what, "list one share for each GPU of the instance"))
    if gpus and profile.main_gpu is not None and profile.main_gpu >= gpus:
        what = f"main_gpu is {profile.main_gpu}, but the instance has {_count(gpus)}"
        problems.append(Problem(what, "count from 0 within the instance's GPUs"))
    return problems


def split_mode_problems(
    profile: Profile, known: Sequence[str], owner: str, choose: str
) -> Iterator[Problem]:
    """A split mode that only the other engine, ``owner``, has."""
    if profile.split_mode and profile.split_mode not in known:
        what = f'split_mode = "{profile.split_mode}" is supported by {owner} only'
        yield Problem(what, f"choose split_mode from {', '.join(known)}, or {choose}")


def sampled(row: dict[str, Any], depth: str, sequences: int, prompt_depth: str) -> Iterator[Sample]:
    """Samples in a line with the speeds of a prompt and of the generation after it.

    + depth, prompt_depth: fields with the depth of each; "" for 0
    """
    depth_tokens = row[prompt_depth] if prompt_depth else 0
    yield Sample(Case("prompt", depth_tokens, sequences), row["pp"], [row["speed_pp"]])
    yield Sample(Case("generation", row[depth], sequences), row["tg"], [row["speed_tg"]])


def _count(gpus: int) -> str:
    return "1 GPU" if gpus == 1 else f"{gpus} GPUs"
