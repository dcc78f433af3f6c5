"""What is worth a try with a llama-server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from corral.catalog.profile import UNQUANTIZED, Profile, SplitMode
from corral.engines.tuning import (
    NO_PLACEMENT,
    Choice,
    Dimension,
    Machine,
    dimension,
    drafts,
    kv_types,
    numbers,
    shares,
)

_UBATCHES, _BATCHES = (128, 256, 512, 1024, 2048, 4096), (512, 1024, 2048, 4096, 8192)
_MOST_DRAFTED = 4
# With experts of the first layers in host memory the first GPU has less to do.
_LESS_ON_FIRST = 0.85


def tuning_dimensions(
    profile: Profile, machine: Machine, *, split_modes: Sequence[SplitMode]
) -> tuple[Dimension, ...]:
    """The dimensions, those with the largest effect first."""
    return (
        *_placement(profile, machine),
        *_ubatch(profile),
        *_threads(profile, machine),
        *_batch(profile),
        *drafts(profile, machine, _MOST_DRAFTED),
        *kv_types(profile),
        *_split(profile, machine, split_modes),
        *_binding(profile, machine),
        *_flash_attention(profile),
    )


def _placement(profile: Profile, machine: Machine) -> Iterator[Dimension]:
    """Experts on the host: all, or those of some layers, whole or in parts."""
    if not machine.gpus:
        return
    auto = {**NO_PLACEMENT, "placement": "auto"}
    choices = [Choice(label="auto", keys=auto)]
    if machine.experts:
        choices += [
            Choice(label="whole layers", keys=auto, placing="whole-layers"),
            Choice(label="one more layer on the host", keys=auto, placing="one-more-layer"),
            Choice(label="last layers on the host", keys=auto, placing="last-layers"),
            Choice(label="experts-on-cpu", keys={**NO_PLACEMENT, "placement": "experts-on-cpu"}),
        ]
    decided = profile.cpu_moe_layers or profile.tensor_overrides or profile.gpu_layers != "all"
    current = "as the profile says" if decided else profile.placement
    yield from dimension("placement", current, choices)


def _ubatch(profile: Profile) -> Iterator[Dimension]:
    """Micro-batches, with a batch that holds them."""
    longest = profile.context_tokens_per_slot
    choices = (
        Choice(
            label=str(n),
            keys={"ubatch_tokens": n} | ({"batch_tokens": n} if n > profile.batch_tokens else {}),
        )
        for n in _UBATCHES
        if n <= longest
    )
    yield from dimension("micro-batch", profile.ubatch_tokens, choices)


def _batch(profile: Profile) -> Iterator[Dimension]:
    longest = profile.context_tokens_per_slot * profile.slots
    values = (n for n in _BATCHES if n <= longest)
    yield from numbers("batch", "batch_tokens", profile.batch_tokens, values)


def _threads(profile: Profile, machine: Machine) -> Iterator[Dimension]:
    """Threads, where the processor computes anything at all."""
    on_gpu = machine.gpus and profile.placement == "gpu" and profile.gpu_layers == "all"
    if on_gpu and not (profile.cpu_moe_layers or profile.tensor_overrides):
        return
    values = {*shares(machine.cores), machine.threads}
    yield from numbers("threads", "threads", profile.threads, values)
    both = {machine.cores, machine.threads}
    yield from numbers("threads for prompts", "batch_threads", profile.batch_threads, both)


def _binding(profile: Profile, machine: Machine) -> Iterator[Dimension]:
    """Threads and memory on several NUMA nodes."""
    if machine.numa_nodes < 2:
        return
    plain = {"numa_memory": None, "numa_nodes": None}
    choices = (
        Choice(label="unset", keys={"numa": None, **plain}),
        Choice(label="distribute", keys={"numa": "distribute", **plain}),
        Choice(label="isolate", keys={"numa": "isolate", **plain}),
        Choice(
            label="interleaved",
            keys={"numa": "numactl", "numa_memory": "interleave", "numa_nodes": None},
        ),
    )
    interleaved = profile.numa == "numactl" and profile.numa_memory == "interleave"
    current = "interleaved" if interleaved else profile.numa or "unset"
    yield from dimension("thread binding", current, choices)


def _split(
    profile: Profile, machine: Machine, split_modes: Sequence[SplitMode]
) -> Iterator[Dimension]:
    """How several GPUs share the model."""
    if machine.gpus < 2:
        return
    choices = (Choice(label=mode, keys={"split_mode": mode}) for mode in split_modes)
    yield from dimension("split mode", profile.split_mode or "layer", choices)
    if profile.placement == "auto":
        # It decides the shares itself.
        return
    even = [1.0] * machine.gpus
    less = [_LESS_ON_FIRST, *even[1:]]
    split = (
        Choice(label="even", keys={"tensor_split": even}),
        Choice(label="less on the first", keys={"tensor_split": less}),
    )
    own = profile.tensor_split
    current = "even" if own is None or len(set(own)) == 1 else "as the profile says"
    yield from dimension("tensor split", current, split)


def _flash_attention(profile: Profile) -> Iterator[Dimension]:
    """Where nothing needs it."""
    if profile.kv_type_v in UNQUANTIZED and not {*profile.tune_kv_types} - UNQUANTIZED:
        choices = (
            Choice(label=word, keys={"flash_attention": word == "on"}) for word in ("on", "off")
        )
        yield from dimension("flash attention", "on" if profile.flash_attention else "off", choices)
