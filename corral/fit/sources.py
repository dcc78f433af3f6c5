"""Headers of the shards that a lock file pins or a plan names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from corral_shared.names import quoted_path

from corral.catalog.entries import Catalog
from corral.errors import CorralError
from corral.fit.headers import ShardSource, StoredHeader
from corral.fit.model import ModelFile, model_file
from corral.lock.lock_file import Lock, LockedFile, LockedModel, locked_shards
from corral.plan.weights import HeaderPlan, ShardPlan


class HeaderSource(Protocol):
    """Source of headers for planning: HeaderStore, or a test's own."""

    def headers(self, shards: Sequence[ShardSource]) -> Sequence[StoredHeader]:
        """One for each shard, in order. Raises CorralError."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Shards with their headers, and the model in them; ``unknown``: why it is None."""

    shards: tuple[ShardPlan, ...]
    model: ModelFile | None
    unknown: str = ""


def with_headers(shards: Sequence[ShardPlan], source: HeaderSource) -> Weights:
    """Fetch the headers of ``shards``; without an answer of the hub the model is unknown."""
    sources = [ShardSource(s.url, s.sha256, s.size_bytes, s.gated) for s in shards]
    try:
        stored = source.headers(sources)
    except CorralError as error:
        return Weights(tuple(shards), None, f"{error.where}: {error.what}")
    headed = tuple(_headed(shard, h) for shard, h in zip(shards, stored, strict=True))
    return Weights(headed, model_file([h.header for h in stored]))


def _headed(shard: ShardPlan, stored: StoredHeader) -> ShardPlan:
    header = HeaderPlan(size_bytes=stored.header.data_start_bytes, sha256=stored.header_sha256)
    return shard.model_copy(update={"header": header})


@dataclass(frozen=True, slots=True)
class LockedModels:
    """Models that the lock file pins, read from ``hub``."""

    catalog: Catalog
    lock: Lock
    hub: str
    headers: HeaderSource

    def read(self, model: str, quant: str) -> ModelFile:
        """The model of a quant. Raises CorralError: unknown, not locked or unreachable."""
        where = f"{model}/{quant}"
        known = self.catalog.model(model, where=where).quants
        if quant not in known:
            what = f"model {model} has no quant {quant} (known: {', '.join(sorted(known))})"
            raise CorralError(where, what, f"name one, or add it to catalog/models/{model}.toml")
        entry, files = self._locked(model, quant, where)
        base = f"{self.hub}/{entry.repo}/resolve/{entry.revision}"
        gated = self.catalog.models[model].needs_token(self.hub)
        sources = [
            ShardSource(f"{base}/{quoted_path(f.path)}", f.sha256, f.size_bytes, gated)
            for f in files
        ]
        return model_file([stored.header for stored in self.headers.headers(sources)])

    def _locked(
        self, model: str, quant: str, where: str
    ) -> tuple[LockedModel, tuple[LockedFile, ...]]:
        try:
            return locked_shards(self.lock, self.catalog, model, quant, where=where)
        except CorralError as error:
            step = (
                "add an instance with it to an inventory, then run `corral lock` with that "
                "inventory: only models of instances are locked"
            )
            raise CorralError(error.where, error.what, step) from error
