"""Ways in which some GPUs can serve a model in safetensors, best first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from corral.catalog.entries import EngineKind
from corral.catalog.profile import KvType, Profile
from corral.engines import engine_module
from corral.engines.base import ParallelChoice
from corral.fit.answer import TargetGpu
from corral.fit.safetensors.answer import CountedAnswer, answer
from corral.model_files.model import SafetensorsModel
from corral.plan.placement import ResolvedPlacement
from corral.schema import Frozen

# What the listed figures hold for, beside the defaults of a profile.
SLOTS, BATCH_TOKENS = 64, 8192
_KV_TYPES: tuple[KvType, ...] = ("f16", "fp8")
_SMALLEST_CONTEXT_TOKENS = 4096
# The length of the requests that are counted, where the model serves as much.
USUAL_TOKENS = 32768


class ParallelOffer(Frozen):
    """A quant on all GPUs, divided in one way, with one KV cache type.

    + cache_tokens, requests: of all copies together; + request_tokens: length of those requests
    + context_tokens: the longest request that fits, at most the trained context
    """

    quant: str
    weights_mib: int
    tensor_parallel: int
    data_parallel: int
    expert_parallel: bool
    kv_type: KvType
    context_tokens: int
    cache_tokens: int
    requests: float
    request_tokens: int


def parallel_offers(
    quants: Mapping[str, SafetensorsModel], targets: Sequence[TargetGpu], *, kind: EngineKind
) -> list[ParallelOffer]:
    """All that fit: by longer context, unquantized cache, then by more requests at a time.

    Expert parallelism is listed where experts cannot be divided; it hardly changes memory.
    """
    found = [
        offer
        for quant, model in quants.items()
        for choice in engine_module(kind).parallel_choices(len(targets))
        for kv_type in _KV_TYPES
        for offer in _offer(quant, model, choice, kv_type, targets, kind)
    ]
    divided = {(o.quant, o.kv_type, o.data_parallel) for o in found if not o.expert_parallel}
    fitting = [
        offer
        for offer in found
        if not offer.expert_parallel
        or (offer.quant, offer.kv_type, offer.data_parallel) not in divided
    ]
    return sorted(
        fitting,
        key=lambda o: (-o.context_tokens, _KV_TYPES.index(o.kv_type), -o.requests, o.weights_mib),
    )


def _offer(
    quant: str,
    model: SafetensorsModel,
    choice: ParallelChoice,
    kv_type: KvType,
    targets: Sequence[TargetGpu],
    kind: EngineKind,
) -> Iterator[ParallelOffer]:
    if model.dimensions is None:
        return
    trained = model.dimensions.max_position_embeddings
    tried = _profile(quant, choice, kv_type, trained)
    longest = _answer(model, tried, targets, kind).longest_tokens
    if longest < _SMALLEST_CONTEXT_TOKENS:
        return
    length = min(USUAL_TOKENS, longest)
    found = _answer(model, _profile(quant, choice, kv_type, length), targets, kind)
    if not (found.fits and found.cache):
        return
    yield ParallelOffer(
        quant=quant,
        weights_mib=max(row.weights_mib for row in found.rows),
        **choice._asdict(),
        kv_type=kv_type,
        context_tokens=longest,
        cache_tokens=found.cache.tokens * choice.data_parallel,
        requests=found.cache.requests,
        request_tokens=length,
    )


def _answer(
    model: SafetensorsModel, profile: Profile, targets: Sequence[TargetGpu], kind: EngineKind
) -> CountedAnswer:
    placement = ResolvedPlacement(gpu_layers="all")
    return answer(model, profile, placement, kind=kind, targets=targets, host_memory_mib=None)


def _profile(quant: str, choice: ParallelChoice, kv_type: KvType, context_tokens: int) -> Profile:
    return Profile(
        model="-",
        quant=quant,
        engine="-",
        context_tokens_per_slot=context_tokens,
        slots=SLOTS,
        batch_tokens=BATCH_TOKENS,
        kv_type_k=kv_type,
        kv_type_v=kv_type,
        **choice._asdict(),
    )
