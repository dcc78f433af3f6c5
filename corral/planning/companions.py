"""Files beside the model of an instance: a draft model, and LoRA adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from corral.catalog.entries import FileKind
from corral.fit.model import ModelFile
from corral.fit.sources import Weights
from corral.plan.weights import ShardPlan


def with_companions(
    own: Weights, drafts: Sequence[Weights], adapters: Sequence[Weights]
) -> Weights:
    """Weights with the files beside them, of the kinds draft and adapter."""
    shards = [
        *own.shards,
        *(_of_kind(shard, "draft") for one in drafts for shard in one.shards),
        *(_of_kind(shard, "adapter") for one in adapters for shard in one.shards),
    ]
    model, unknown = own.model, own.unknown
    for one in drafts:
        if isinstance(model, ModelFile) and isinstance(one.model, ModelFile):
            model = replace(model, draft=one.model)
        else:
            model, unknown = None, unknown or one.unknown
    if isinstance(model, ModelFile):
        sizes = (shard.size_bytes for one in adapters for shard in one.shards)
        model = replace(model, adapters_bytes=sum(sizes))
    return Weights(tuple(shards), model, unknown)


def _of_kind(shard: ShardPlan, kind: FileKind) -> ShardPlan:
    return shard.model_copy(update={"kind": kind if shard.kind == "weights" else shard.kind})
