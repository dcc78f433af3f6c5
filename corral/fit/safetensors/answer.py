"""The answer of `corral fit` for a model in safetensors, by the engine's own count."""

from __future__ import annotations

from collections.abc import Sequence

from corral.catalog.entries import EngineKind
from corral.catalog.profile import Profile
from corral.engines import engine_module
from corral.engines.memory_count import CacheSize
from corral.fit.answer import Answer, TargetGpu, gpu_row, host_row
from corral.model_files.model import SafetensorsModel
from corral.plan.placement import DeviceNeed, ResolvedPlacement

_NOTHING = DeviceNeed(weights_mib=0, kv_mib=0, compute_mib=0, runtime_mib=0)


class CountedAnswer(Answer):
    """An answer by the engine's own count.

    + cache: tokens and requests that the KV cache holds; None where it would not serve
    + refusal: why it would not, or empty; + longest_tokens: the longest request that it could serve
    """

    cache: CacheSize | None
    refusal: str
    next_step: str
    longest_tokens: int

    @property
    def fits(self) -> bool:
        """Whether the engine would serve it, and the need fits every device."""
        return super().fits and not self.refusal


def answer(
    model: SafetensorsModel,
    profile: Profile,
    placement: ResolvedPlacement,
    *,
    kind: EngineKind,
    targets: Sequence[TargetGpu],
    host_memory_mib: int | None,
) -> CountedAnswer:
    """Fit one instance to the GPUs of its GPU set; each GPU holds one rank."""
    memory_mib = [target.memory_mib for target in targets]
    counted = engine_module(kind).count_memory(model, profile, gpu_memory_mib=memory_mib)
    need = counted.need
    gpus = [gpu_row(target, one) for target, one in zip(targets, need.gpus, strict=False)]
    return CountedAnswer(
        rows=(*gpus, host_row(need.host or _NOTHING, host_memory_mib, mapped=False)),
        placement=placement,
        unknown=need.unknown,
        cache=counted.cache,
        refusal=counted.refusal,
        next_step=counted.next_step,
        longest_tokens=counted.longest_tokens,
    )
