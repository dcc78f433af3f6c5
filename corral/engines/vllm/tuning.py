"""What is worth a try with vLLM."""

from __future__ import annotations

from collections.abc import Iterator

from corral.catalog.profile import Profile
from corral.engines.base import ParallelChoice
from corral.engines.tuning import (
    Choice,
    Dimension,
    Machine,
    dimension,
    drafts,
    kv_types,
    numbers,
    shares,
)
from corral.engines.vllm.memory.choices import parallel_choices

_BATCHES = (1024, 2048, 4096, 8192, 16384, 32768)
# More sequences than the profile promises; fewer would break the promise.
_TIMES = (2, 4, 8)
_MOST_DRAFTED = 3


def tuning_dimensions(profile: Profile, machine: Machine) -> tuple[Dimension, ...]:
    """The dimensions, those with the largest effect first."""
    sequences = (profile.slots * times for times in _TIMES)
    return (
        *_ranks(profile, machine),
        *numbers("batched tokens", "batch_tokens", profile.batch_tokens, _BATCHES),
        *numbers("concurrent sequences", "slots", profile.slots, sequences),
        *drafts(profile, machine, _MOST_DRAFTED),
        *kv_types(profile),
        *_cores(profile, machine),
    )


def _ranks(profile: Profile, machine: Machine) -> Iterator[Dimension]:
    """Tensor and data parallelism over the GPUs of the instance."""
    if machine.gpus < 2:
        return
    own = ParallelChoice(profile.tensor_parallel, profile.data_parallel, profile.expert_parallel)
    choices = (
        Choice(label=_label(one), keys=one._asdict())
        for one in parallel_choices(machine.gpus)
        if machine.experts or not one.expert_parallel
    )
    yield from dimension("TP x DP", _label(own), choices)


def _label(one: ParallelChoice) -> str:
    experts = " with whole experts" if one.expert_parallel else ""
    return f"{one.tensor_parallel} x {one.data_parallel}{experts}"


def _cores(profile: Profile, machine: Machine) -> Iterator[Dimension]:
    """Cores of a single rank without GPUs."""
    if machine.gpus or profile.tensor_parallel > 1:
        return
    choices = (
        Choice(label=cores, keys={"cpu_cores": [cores]})
        for cores in (f"0-{n - 1}" for n in shares(machine.cores) if n > 1)
    )
    yield from dimension("cores", ",".join(profile.cpu_cores) or "unset", choices)
