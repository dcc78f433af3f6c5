"""Headers of locked models, by quant."""

from __future__ import annotations

from dataclasses import dataclass

from corral_shared.names import quoted_path

from corral.catalog.entries import Catalog
from corral.errors import CorralError
from corral.fit.headers import ShardSource
from corral.fit.model import ModelFile, model_file
from corral.fit.planned import HeaderSource
from corral.lock.lock_file import Lock, LockedFile, LockedModel, locked_shards


@dataclass(frozen=True, slots=True)
class LockedModels:
    """What the lock file pins, read where ``hub`` has it."""

    catalog: Catalog
    lock: Lock
    hub: str
    headers: HeaderSource

    def read(self, model: str, quant: str) -> ModelFile:
        """The model of a quant. Raises CorralError: unknown, not locked, no header to be had."""
        where = f"{model}/{quant}"
        known = self.catalog.model(model, where=where).quants
        if quant not in known:
            what = f"model {model} has no such quant (known: {', '.join(sorted(known))})"
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
                "describe an instance with it in an inventory, then `corral lock` with that "
                "inventory: what nobody serves is not locked"
            )
            raise CorralError(error.where, error.what, step) from error
