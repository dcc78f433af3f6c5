"""The header of a model that is planned for: from the store, or why it is not at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from corral.errors import CorralError
from corral.fit.headers import ShardSource, StoredHeader
from corral.fit.model import ModelFile, model_file
from corral.plan.host import HeaderPlan, ShardPlan


class HeaderSource(Protocol):
    """Where planning gets headers from: HeaderStore, or a test's own."""

    def headers(self, shards: Sequence[ShardSource]) -> Sequence[StoredHeader]:
        """One for each shard, in order. Raises CorralError."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Shards with their headers, and the model in them; ``unknown`` says why it is None."""

    shards: tuple[ShardPlan, ...]
    model: ModelFile | None
    unknown: str = ""


def with_headers(shards: Sequence[ShardPlan], source: HeaderSource) -> Weights:
    """Ask for the headers of ``shards``; a hub that does not answer leaves the model unknown."""
    asked = [ShardSource(s.url, s.sha256, s.size_bytes, s.gated) for s in shards]
    try:
        stored = source.headers(asked)
    except CorralError as error:
        return Weights(tuple(shards), None, f"{error.where}: {error.what}")
    headed = tuple(_headed(shard, h) for shard, h in zip(shards, stored, strict=True))
    return Weights(headed, model_file([h.header for h in stored]))


def _headed(shard: ShardPlan, stored: StoredHeader) -> ShardPlan:
    header = HeaderPlan(size_bytes=stored.header.data_start_bytes, sha256=stored.header_sha256)
    return shard.model_copy(update={"header": header})
