"""Quants, KV cache types and contexts of a model that fit on some GPUs, best first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from corral.catalog.profile import KvType, Profile
from corral.fit.answer import Answer, TargetGpu, answer
from corral.fit.model import ModelFile
from corral.fit.place import DoesNotFitError
from corral.plan.placement import ResolvedPlacement
from corral.schema import Frozen

_SMALLEST_CONTEXT_TOKENS = 4096
# Shorter contexts are not listed where experts are divided between GPUs and host.
_USUAL_CONTEXT_TOKENS = 16384
_KV_TYPES: tuple[KvType, ...] = ("f16", "q8_0", "q4_0")


class Offer(Frozen):
    """A context of one slot that fits with a quant, a KV cache type and a placement."""

    quant: str
    weights_mib: int
    kv_type: KvType
    context_tokens: int
    placement: Literal["gpu", "auto", "cpu"]
    weights_on_gpus_percent: int
    free_vram_mib: int
    host_mib: int


def offers(
    quants: Mapping[str, ModelFile], targets: Sequence[TargetGpu], host_memory_mib: int | None
) -> list[Offer]:
    """All offers: first those entirely on the GPUs, then by larger quant and longer context.

    Without quants that do not fit, and without those of which only the weights are known.
    """
    fitting = [
        offer
        for quant, model in quants.items()
        for kv_type in _KV_TYPES
        for offer in _offers_of(quant, model, kv_type, targets, host_memory_mib)
    ]
    return sorted(
        fitting,
        key=lambda o: (
            o.placement == "gpu",
            o.weights_mib,
            o.weights_on_gpus_percent,
            o.context_tokens,
            -_KV_TYPES.index(o.kv_type),
        ),
        reverse=True,
    )


def _offers_of(
    quant: str,
    model: ModelFile,
    kv_type: KvType,
    targets: Sequence[TargetGpu],
    host_memory_mib: int | None,
) -> Iterator[Offer]:
    """The longest context entirely on the GPUs; without one, each that fits partly."""

    def fitting(placement: Literal["gpu", "auto"], contexts: Iterable[int]) -> Iterator[Offer]:
        for context_tokens in contexts:
            profile = _profile(quant, kv_type, context_tokens, placement)
            if found := _fitting(model, profile, targets, host_memory_mib):
                yield _offer(profile, found)

    longest = next(fitting("gpu", _contexts(model)), None)
    if longest or not targets:
        yield from [longest] if longest else []
    else:
        yield from fitting("auto", (c for c in _contexts(model) if c >= _USUAL_CONTEXT_TOKENS))


def _contexts(model: ModelFile) -> Iterator[int]:
    """The trained context, then smaller powers of two."""
    trained = model.shape.train_context_tokens if model.shape else 0
    if trained >= _SMALLEST_CONTEXT_TOKENS:
        yield trained
    power = 1 << max(trained.bit_length() - 1, 0)
    while power >= _SMALLEST_CONTEXT_TOKENS:
        if power != trained:
            yield power
        power //= 2


def _fitting(
    model: ModelFile, profile: Profile, targets: Sequence[TargetGpu], host_memory_mib: int | None
) -> Answer | None:
    layers: Literal[0, "all"] = "all" if targets else 0
    try:
        found = answer(
            model,
            profile,
            ResolvedPlacement(gpu_layers=layers),
            kind="llama.cpp",
            targets=targets,
            host_memory_mib=host_memory_mib,
        )
    except DoesNotFitError:
        return None
    return found if found.fits else None


def _profile(
    quant: str, kv_type: KvType, context_tokens: int, placement: Literal["gpu", "auto"]
) -> Profile:
    return Profile(
        model="-",
        quant=quant,
        engine="llama.cpp",
        context_tokens_per_slot=context_tokens,
        slots=1,
        kv_type_k=kv_type,
        kv_type_v=kv_type,
        placement=placement,
    )


def _placement(profile: Profile) -> Literal["gpu", "auto"]:
    return "auto" if profile.placement == "auto" else "gpu"


def _offer(profile: Profile, found: Answer) -> Offer:
    *gpus, host = found.rows
    weights_mib = sum(row.weights_mib for row in found.rows)
    return Offer(
        quant=profile.quant,
        weights_mib=weights_mib,
        kv_type=profile.kv_type_k,
        context_tokens=profile.context_tokens_per_slot,
        placement=_placement(profile) if gpus else "cpu",
        weights_on_gpus_percent=100 * sum(row.weights_mib for row in gpus) // max(weights_mib, 1),
        free_vram_mib=sum(row.free_mib or 0 for row in gpus),
        host_mib=host.weights_mib + host.kv_mib + host.compute_mib + host.runtime_mib,
    )
