"""Memory of a vLLM server: weights exactly, bounds for the rest, and the KV cache that is left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from corral.catalog.profile import Profile
from corral.engines.memory_count import CacheSize, MemoryCount
from corral.engines.vllm.memory.bounds import (
    MIB,
    activation_bytes,
    context_mib,
    graph_bytes,
    other_bytes,
)
from corral.engines.vllm.memory.cache import (
    CPU_BLOCK_TOKENS,
    GPU_BLOCK_TOKENS,
    Cache,
    token_bytes,
)
from corral.engines.vllm.memory.ranks import Ranks, undivided
from corral.engines.vllm.memory.weights import COMPUTE_BYTES, weights_bytes
from corral.model_files.config import ModelDimensions
from corral.model_files.model import SafetensorsModel
from corral.plan.placement import DeviceNeed, InstanceNeed

# CUDA shows less than nvidia-smi: what the driver reserves. Measured 615 MiB of an H200.
_DRIVER_MIB = 640
_GIB = 1024**3
# In host memory, measured on CPU: the API server and the engine, and each rank. On GPUs a rank has
# pinned buffers and CUDA's own, too.
_SERVER_MIB, _CPU_RANK_MIB, _GPU_RANK_MIB = 1280, 1792, 4096


@dataclass(frozen=True, slots=True)
class _Rank:
    """What one rank holds; sizes in bytes.

    + budget: what weights, KV cache, activations and the rest must share; None without GPUs
    """

    weights: int
    activations: int
    others: int
    cache: Cache
    budget: int | None

    @property
    def left_bytes(self) -> int:
        """The KV cache before it is rounded down to blocks; negative where nothing is left."""
        return self.cache.size_bytes


def count(
    model: SafetensorsModel, profile: Profile, *, gpu_memory_mib: Sequence[int]
) -> MemoryCount:
    """The memory need of an instance.

    + gpu_memory_mib: memory of each GPU by nvidia-smi; empty without GPUs
    """
    if model.dimensions is None:
        return MemoryCount(need=InstanceNeed(unknown=model.unknown))
    if problem := undivided(model.dimensions, _ranks(profile)):
        return MemoryCount(
            need=InstanceNeed(unknown=problem),
            refusal=problem,
            next_step="choose another tensor_parallel, data_parallel or expert_parallel",
        )
    if profile.mtp_draft_tokens and not model.dimensions.num_nextn_predict_layers:
        problem = "mtp_draft_tokens is set, and the model has no MTP layer that drafts"
        step = "remove mtp_draft_tokens from the profile"
        return MemoryCount(need=InstanceNeed(unknown=problem), refusal=problem, next_step=step)
    rank = _rank(model, model.dimensions, profile, min(gpu_memory_mib, default=None))
    ranks = _ranks(profile)
    need = _gpu_need(rank, ranks) if gpu_memory_mib else _cpu_need(rank, ranks)
    length = profile.context_tokens_per_slot
    longest = min(rank.cache.tokens, model.dimensions.max_position_embeddings)
    if rank.cache.tokens < length:
        what, step = _refusal(rank, length, gpus=bool(gpu_memory_mib))
        return MemoryCount(need=need, refusal=what, next_step=step, longest_tokens=longest)
    requests = rank.cache.requests(length) * ranks.data
    cache = CacheSize(tokens=rank.cache.tokens, requests=round(requests, 2))
    return MemoryCount(need=need, cache=cache, longest_tokens=longest)


def _ranks(profile: Profile) -> Ranks:
    return Ranks(
        tensor=profile.tensor_parallel,
        data=profile.data_parallel,
        experts_whole=profile.expert_parallel,
    )


def _rank(
    model: SafetensorsModel, dimensions: ModelDimensions, profile: Profile, memory_mib: int | None
) -> _Rank:
    ranks, mtp = _ranks(profile), bool(profile.mtp_draft_tokens)
    weights = weights_bytes(model.tensors, dimensions, ranks, mtp=mtp)
    activations = activation_bytes(
        dimensions, ranks, batch_tokens=profile.batch_tokens, requests=profile.slots, mtp=mtp
    )
    others = 0
    if memory_mib is not None:
        activations += graph_bytes(dimensions, eager=profile.eager)
        others = other_bytes(ranks)
    one_token = token_bytes(
        dimensions,
        tensor=profile.tensor_parallel,
        element_bytes=1 if profile.kv_type_k == "fp8" else COMPUTE_BYTES,
        mtp=mtp,
    )
    budget = None
    left = (profile.kv_cache_mib or 0) * MIB
    if memory_mib is not None:
        total_bytes = (memory_mib - _DRIVER_MIB) * MIB
        budget = math.ceil(total_bytes * profile.gpu_memory_utilization)
        if profile.kv_cache_mib is None:
            left = budget - weights - activations - others
        else:
            budget = weights + activations + others + left
    block_tokens = CPU_BLOCK_TOKENS if memory_mib is None else GPU_BLOCK_TOKENS
    return _Rank(weights, activations, others, Cache(left, one_token, block_tokens), budget)


def _refusal(rank: _Rank, length_tokens: int, *, gpus: bool) -> tuple[str, str]:
    """In the words of vLLM, which would refuse it at its start."""
    needed = rank.cache.needed_bytes(length_tokens) / _GIB
    more = "raise gpu_memory_utilization or tensor_parallel" if gpus else "raise kv_cache_mib"
    if not rank.cache.tokens:
        budget = f" of {rank.budget / _GIB:.2f} GiB" if rank.budget else ""
        what = (
            f"no memory is left for the KV cache: weights take {rank.weights / _GIB:.2f} GiB"
            f"{budget} on each GPU, activations and CUDA graphs up to "
            f"{(rank.activations + rank.others) / _GIB:.2f} GiB"
            if gpus
            else "kv_cache_mib leaves no memory for the KV cache"
        )
        return what, f"{more}, or choose smaller weights"
    what = (
        f"to serve at least one request with the model's max seq len ({length_tokens}), "
        f"{needed:.2f} GiB KV cache is needed, which is larger than the available KV cache memory "
        f"({rank.left_bytes / _GIB:.2f} GiB): the estimated maximum model length is "
        f"{rank.cache.tokens}"
    )
    return what, f"lower context_tokens_per_slot to {rank.cache.tokens}, or {more}"


def _gpu_need(rank: _Rank, ranks: Ranks) -> InstanceNeed:
    """Each GPU holds one rank; the context comes on top of the share that vLLM is given."""
    budget_mib = _mib(rank.budget or 0)
    context = context_mib(ranks)
    weights_mib, compute_mib, others_mib = map(_mib, (rank.weights, rank.activations, rank.others))
    device = DeviceNeed(
        weights_mib=weights_mib,
        kv_mib=max(budget_mib - weights_mib - compute_mib - others_mib, 0),
        compute_mib=compute_mib,
        runtime_mib=others_mib + context,
        reserved_mib=budget_mib + context,
    )
    host_mib = _SERVER_MIB + ranks.count * _GPU_RANK_MIB
    host = DeviceNeed(weights_mib=0, kv_mib=0, compute_mib=0, runtime_mib=host_mib)
    return InstanceNeed(gpus=(device,) * ranks.count, host=host)


def _cpu_need(rank: _Rank, ranks: Ranks) -> InstanceNeed:
    """All ranks in the memory of the host."""
    return InstanceNeed(
        host=DeviceNeed(
            weights_mib=_mib(rank.weights) * ranks.count,
            kv_mib=_mib(max(rank.left_bytes, 0)) * ranks.count,
            compute_mib=_mib(rank.activations) * ranks.count,
            runtime_mib=_SERVER_MIB + ranks.count * _CPU_RANK_MIB,
        )
    )


def _mib(size_bytes: int) -> int:
    return -(-size_bytes // MIB)
