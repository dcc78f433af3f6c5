"""The engine vLLM: its command line, its unit, and what its routes open.

As of vLLM 0.32 and 0.33.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from corral.catalog.entries import EngineKind
from corral.catalog.profile import Profile
from corral.engines.base import (
    KeyConfig,
    MemoryCount,
    ParallelChoice,
    Series,
    UnitNeeds,
    WeightsFormat,
)
from corral.engines.flag_table import Problem, Settings
from corral.engines.load import LoadCase, LoadCommand
from corral.engines.plain import PlainEngine
from corral.engines.tuning import Dimension, Machine
from corral.engines.vllm import keys
from corral.engines.vllm.flags import FLAGS, SHUTDOWN_SECONDS
from corral.engines.vllm.load import MODULE, load_command
from corral.engines.vllm.memory.choices import parallel_choices
from corral.engines.vllm.memory.count import count
from corral.engines.vllm.problems import problems
from corral.engines.vllm.routes import ROUTES
from corral.engines.vllm.tuning import tuning_dimensions
from corral.model_files.model import SafetensorsModel

# -I: neither the working folder nor the user's packages are searched for modules.
_MODULE = ("-I", "-m", MODULE, "serve")
# The API server ends its engine after the requests, which takes up to 15 seconds.
_MARGIN_SECONDS = 30


class Vllm(PlainEngine):
    """vLLM."""

    kind: EngineKind = "vllm"
    flags = FLAGS
    program = "python"
    weights: WeightsFormat = "safetensors"
    # torch.compile and Triton compile at run time, against Python's headers; the kernels for CPUs
    # load libnuma.
    packages: tuple[str, ...] = ("g++", "gcc", "libnuma1", "python3-dev")
    socket_name = "vllm.sock"
    # By the times in its metrics.
    reports_speed = True
    series = Series(
        generated_tokens="vllm:generation_tokens_total",
        running="vllm:num_requests_running",
        waiting="vllm:num_requests_waiting",
        kv_used="vllm:kv_cache_usage_perc",
    )
    # It loads, profiles and answers with random weights, from configuration and tokenizer alone.
    trial_arguments: tuple[str, ...] = ("--load-format", "dummy")
    routes = ROUTES
    load_fields: Mapping[str, Any] = {"ignore_eos": True}  # noqa: RUF012
    unit_needs = UnitNeeds(
        # The API server ends with code 0 when its engine has died.
        restart="always",
        # Without weights a start for CUDA took up to 153 s; one on a busy CPU 145 to 200 s.
        start_seconds=900,
        stop_seconds=SHUTDOWN_SECONDS + _MARGIN_SECONDS,
        # libzmq, between the API server and its engine, aborts without it.
        system_calls=("sched_setscheduler",),
        # libgomp computes with one thread where it cannot bind its threads to their cores.
        cpu_system_calls=("sched_setaffinity",),
        # Ranks talk by gloo, over loopback, whatever the server itself listens on.
        address_families=("AF_INET", "AF_NETLINK"),
        open_files=65535,
        own_ports=True,
        home_in_cache=True,
        # oneDNN; on CUDA torch.compile, Triton and graphs work without.
        executable_memory_on_cpu=True,
    )
    environment: Mapping[str, str] = {  # noqa: RUF012
        # No network at all: neither figures of its use nor files from the hub.
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        # Ranks find each other on loopback alone: the unit allows no other address.
        "VLLM_HOST_IP": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
        # FlashInfer's sampler compiles at the first start, for which a host needs nvcc and ninja.
        "VLLM_USE_FLASHINFER_SAMPLER": "0",
    }

    def problems(self, profile: Profile, *, gpus: int) -> list[Problem]:
        """Everything in a profile that the engine cannot do; ``gpus``: 0 for none."""
        return problems(profile, gpus=gpus)

    def release_problem(self, pins: Mapping[str, str]) -> str | None:
        """A version that shows keys."""
        return keys.release_problem(pins)

    def key_config(self, *, program: str, key_file: str, folder: str) -> KeyConfig:
        """A YAML file: a flag or a variable would show the keys."""
        return keys.key_config(program, key_file, folder)

    def key_problem(self, key: str) -> str | None:
        """vLLM reads its file as more of the command line."""
        return "begins with a dash, which vLLM takes for a flag" if key.startswith("-") else None

    def argv(self, program: str, settings: Settings) -> tuple[str, ...]:
        """The release's interpreter with vLLM's module; ``model``: folder of the model."""
        arguments = (*FLAGS.arguments(settings), *settings.profile.extra_flags)
        return (program, *_MODULE, settings.model, *arguments)

    def count_memory(
        self, model: SafetensorsModel, profile: Profile, *, gpu_memory_mib: Sequence[int]
    ) -> MemoryCount:
        """Weights exactly, bounds for the rest, and the KV cache that is left."""
        return count(model, profile, gpu_memory_mib=gpu_memory_mib)

    def tuning_dimensions(self, profile: Profile, machine: Machine) -> tuple[Dimension, ...]:
        """Ranks, batched tokens, concurrent sequences, drafts, KV types, cores."""
        return tuning_dimensions(profile, machine)

    def parallel_choices(self, gpus: int) -> Sequence[ParallelChoice]:
        """Each division of the GPUs in copies; with several also whole experts on each GPU."""
        return parallel_choices(gpus)

    def load_command(
        self, case: LoadCase, *, programs: str, model: str, alias: str, url: str, seed: int
    ) -> LoadCommand | None:
        """`vllm bench serve` of the release."""
        python = f"{programs}/{self.program}"
        return load_command(case, python=python, model=model, alias=alias, url=url, seed=seed)

    def keyed_routes(self, profile: Profile) -> tuple[str, ...]:  # noqa: ARG002
        """Routes, as ``METHOD path``, that must refuse a request without a key."""
        return (
            "GET /v1/models",
            "POST /v1/chat/completions",
            "POST /v1/completions",
            "POST /v1/messages",
            "POST /v1/responses",
        )


ENGINE = Vllm()
