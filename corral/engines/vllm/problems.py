"""Settings of a profile that vLLM cannot serve."""

from __future__ import annotations

from collections.abc import Iterator

from corral.catalog.profile import Profile
from corral.engines.flag_table import Problem
from corral.engines.vllm import parsers
from corral.engines.vllm.flags import FLAGS, KV_TYPES
from corral.schema import did_you_mean


def problems(profile: Profile, *, gpus: int) -> list[Problem]:
    """Everything that the engine cannot do; ``gpus``: 0 for none."""
    return [
        *_placement(profile),
        *(_ranks_on_gpus(profile, gpus) if gpus else _ranks_on_cpu(profile)),
        *_experts(profile),
        *_kv_types(profile),
        *_batch(profile),
        *_parsers(profile),
        *FLAGS.extra_flag_problems(profile.extra_flags),
    ]


def _placement(profile: Profile) -> Iterator[Problem]:
    """All weights are in one kind of memory."""
    if profile.placement in ("experts-on-cpu", "auto"):
        what = f'placement = "{profile.placement}" is not known to vLLM'
        yield Problem(what, 'set placement = "gpu", or choose engine = "llama.cpp"')


def _ranks_on_gpus(profile: Profile, gpus: int) -> Iterator[Problem]:
    tensor, data = profile.tensor_parallel, profile.data_parallel
    if tensor * data != gpus:
        what = (
            f"tensor_parallel {tensor} x data_parallel {data} uses {tensor * data} GPUs, but the "
            f"instance has {gpus}"
        )
        step = f'set them so that their product is {gpus}, or name {tensor * data} in "gpus"'
        yield Problem(what, step)
    if profile.cpu_cores:
        yield Problem("cpu_cores has no effect on GPUs", "remove cpu_cores")


def _ranks_on_cpu(profile: Profile) -> Iterator[Problem]:
    tensor, data, cores = profile.tensor_parallel, profile.data_parallel, profile.cpu_cores
    if data > 1:
        # Tried with vLLM 0.32: the server is healthy and ends at its first request.
        what = f"data_parallel {data} without GPUs: vLLM's engine ends at its first request"
        yield Problem(what, "remove data_parallel; more instances on other ports do the same")
    if tensor > 1 and not cores:
        what = f"tensor_parallel {tensor} without GPUs needs the cores of each rank"
        yield Problem(what, 'set cpu_cores, such as ["0-15", "16-31"]')
    if cores and len(cores) != tensor:
        what = f"cpu_cores has {len(cores)} lists for tensor_parallel {tensor}"
        yield Problem(what, "write one list of cores for each rank")
    if profile.kv_cache_mib is None:
        what = "kv_cache_mib is missing: without GPUs vLLM takes nearly all of the host's memory"
        yield Problem(what, "set kv_cache_mib, such as 4096")
    if profile.gpu_memory_utilization != Profile.model_fields["gpu_memory_utilization"].default:
        what = "gpu_memory_utilization has no effect without GPUs"
        yield Problem(what, "remove it, and set kv_cache_mib")


def _experts(profile: Profile) -> Iterator[Problem]:
    if profile.expert_parallel and profile.tensor_parallel * profile.data_parallel == 1:
        what = "expert_parallel has no effect with tensor_parallel 1 and data_parallel 1"
        yield Problem(what, "remove expert_parallel")


def _kv_types(profile: Profile) -> Iterator[Problem]:
    k, v, known = profile.kv_type_k, profile.kv_type_v, ", ".join(sorted(KV_TYPES))
    if k != v:
        what = f'vLLM has one type for both: kv_type_k = "{k}", kv_type_v = "{v}"'
        yield Problem(what, f"set both to one of {known}")
    for key, kv_type in {"kv_type_k": k, "kv_type_v": v}.items():
        if kv_type not in KV_TYPES:
            what = f'{key} = "{kv_type}" is not known to vLLM'
            yield Problem(what, f"choose {key} from {known}")


def _batch(profile: Profile) -> Iterator[Problem]:
    if profile.batch_tokens < profile.slots:
        what = (
            f"batch_tokens {profile.batch_tokens} is less than one token for {profile.slots} slots"
        )
        yield Problem(what, "raise batch_tokens, or lower slots")


def _parsers(profile: Profile) -> Iterator[Problem]:
    chosen = {
        "tool_call_parser": (profile.tool_call_parser, parsers.TOOL_CALLS),
        "reasoning_parser": (profile.reasoning_parser, parsers.REASONING),
    }
    for key, (name, known) in chosen.items():
        if name is not None and name not in known:
            what = f'{key} = "{name}" is no parser of vLLM{did_you_mean(name, known)}'
            yield Problem(what, f"choose {key} from {', '.join(sorted(known))}")
