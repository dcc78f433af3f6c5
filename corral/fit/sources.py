"""Headers of the shards that a lock file pins or a plan names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from corral_shared.names import quoted_path

from corral.catalog.entries import Catalog, WeightsFormat
from corral.catalog.profile import Profile
from corral.errors import CorralError
from corral.fit.gguf import Header
from corral.fit.headers import ShardSource, StoredHeader, StoredSafetensors
from corral.fit.model import ModelFile, model_file
from corral.fit.projector import BadProjectorError, Projector, read_projector
from corral.lock.lock_file import Lock, LockedFile, LockedModel, locked_shards
from corral.model_files.model import SafetensorsModel, safetensors_model
from corral.plan.weights import HeaderPlan, ShardPlan


class HeaderSource(Protocol):
    """Source of headers for planning: HeaderStore, or a test's own. Its methods raise CorralError.

    ``headers`` of GGUF shards and ``safetensors``: one for each shard, in order.
    """

    def headers(self, shards: Sequence[ShardSource]) -> Sequence[StoredHeader]: ...

    def safetensors(self, shards: Sequence[ShardSource]) -> Sequence[StoredSafetensors]: ...

    def content(self, file: ShardSource) -> bytes:
        """A small file."""


_LOCK_IT = (
    "add an instance with it to an inventory, then run `corral lock` with that inventory: only "
    "models of instances are locked"
)
AnyModel = ModelFile | SafetensorsModel


@dataclass(frozen=True, slots=True)
class Weights:
    """Shards with their headers, and the model in them; ``unknown``: why it is None."""

    shards: tuple[ShardPlan, ...]
    model: AnyModel | None
    unknown: str = ""


def with_headers(
    shards: Sequence[ShardPlan], source: HeaderSource, form: WeightsFormat = "gguf"
) -> Weights:
    """Fetch the headers of ``shards``; without an answer of the hub the model is unknown."""
    weights = [shard for shard in shards if shard.kind == "weights"]
    beside = [shard for shard in shards if shard.kind == "config"]
    projectors = [shard for shard in shards if shard.kind == "projector"]
    sources = [_source(shard) for shard in weights]
    stored: Sequence[StoredHeader] | Sequence[StoredSafetensors]
    model: AnyModel
    try:
        if form == "safetensors":
            small = {shard.path: _source(shard) for shard in beside}
            stored, model = _safetensors(sources, weights[0].path, small, source)
        else:
            stored = source.headers(sources)
            seen = source.headers([_source(one) for one in projectors]) if projectors else ()
            model = _model([h.header for h in stored], [h.header for h in seen], projectors)
            projectors = [
                _headed(shard, one.header.data_start_bytes, one.header_sha256)
                for shard, one in zip(projectors, seen, strict=True)
            ]
    except CorralError as error:
        return Weights(tuple(shards), None, f"{error.where}: {error.what}")
    headers = [(h.header.data_start_bytes, h.header_sha256) for h in stored]
    headed = [_headed(shard, *header) for shard, header in zip(weights, headers, strict=True)]
    return Weights((*headed, *projectors, *beside), model)


def _model(
    headers: Sequence[Header], projectors: Sequence[Header], shards: Sequence[ShardPlan]
) -> ModelFile:
    """A model with its projector, if any. Raises CorralError for a file that is none."""
    found = model_file(headers)
    for header, shard in zip(projectors, shards, strict=True):
        found = replace(found, projector=_projector(header, shard.url))
    return found


def _projector(header: Header, where: str) -> Projector:
    try:
        return read_projector(header)
    except BadProjectorError as error:
        step = "correct projector of the quant in catalog/models/, then run `corral lock`"
        raise CorralError(where, f"it is no projector: {error}", step) from error


def _source(shard: ShardPlan) -> ShardSource:
    return ShardSource(shard.url, shard.sha256, shard.size_bytes, shard.gated)


def _safetensors(
    weights: Sequence[ShardSource],
    first: str,
    small: Mapping[str, ShardSource],
    source: HeaderSource,
) -> tuple[Sequence[StoredSafetensors], SafetensorsModel]:
    """Headers of shards and the model in them, whose config.json is beside the ``first`` one."""
    config = f"{first.rpartition('/')[0]}/config.json"
    if config not in small:
        step = "add a pattern for it to the quant's config in catalog/models/, then `corral lock`"
        raise CorralError(first, "no config.json is locked beside it", step)
    stored = source.safetensors(weights)
    model = safetensors_model(
        [h.header for h in stored], source.content(small[config]), where=weights[0].url
    )
    return stored, model


def _headed(shard: ShardPlan, size_bytes: int, sha256: str) -> ShardPlan:
    header = HeaderPlan(size_bytes=size_bytes, sha256=sha256)
    return shard.model_copy(update={"header": header})


@dataclass(frozen=True, slots=True)
class LockedModels:
    """Models that the lock file pins, read from ``hub``.

    + unlocked: the entry of a (model, quant) that the lock lacks, from the hub; raises CorralError
    """

    catalog: Catalog
    lock: Lock
    hub: str
    headers: HeaderSource
    unlocked: Callable[[str, str], LockedModel] | None = None

    def read(self, model: str, quant: str, *, vision: bool = False) -> AnyModel:
        """The model of a quant, with its projector for ``vision``.

        Raises CorralError: unknown, not locked or unreachable.
        """
        where = f"{model}/{quant}"
        known = self.catalog.model(model, where=where).quants
        if quant not in known:
            what = f"model {model} has no quant {quant} (known: {', '.join(sorted(known))})"
            raise CorralError(where, what, f"name one, or add it to catalog/models/{model}.toml")
        entry, files = self._locked(model, quant, where)
        base = f"{self.hub}/{entry.repo}/resolve/{entry.revision}"
        gated = self.catalog.models[model].needs_token(self.hub)
        sources = {
            f: ShardSource(f"{base}/{quoted_path(f.path)}", f.sha256, f.size_bytes, gated)
            for f in files
        }
        weights = [source for file, source in sources.items() if file.kind is None]
        if known[quant].format != "safetensors":
            found = model_file([stored.header for stored in self.headers.headers(weights)])
            beside = [source for file, source in sources.items() if file.kind == "projector"]
            if not (vision and beside):
                return found
            (seen,) = self.headers.headers(beside[:1])
            return replace(found, projector=_projector(seen.header, beside[0].url))
        # Paths from a root, as those of a plan are.
        small = {f"/{f.path}": source for f, source in sources.items() if f.kind == "config"}
        return _safetensors(weights, f"/{files[0].path}", small, self.headers)[1]

    def read_for(self, model: str, profile: Profile) -> AnyModel:
        """The model of a profile with all files beside it. Raises CorralError, as ``read``."""
        found = self.read(model, profile.quant, vision=profile.vision)
        if not isinstance(found, ModelFile):
            return found
        beside = [self.read(*pair) for pair in profile.companions]
        drafts = 1 if profile.draft_model else 0
        for one in beside[:drafts]:
            found = replace(found, draft=one if isinstance(one, ModelFile) else None)
        sizes = (one.file_bytes for one in beside[drafts:] if isinstance(one, ModelFile))
        return replace(found, adapters_bytes=sum(sizes))

    def _locked(
        self, model: str, quant: str, where: str
    ) -> tuple[LockedModel, tuple[LockedFile, ...]]:
        try:
            return locked_shards(self.lock, self.catalog, model, quant, where=where)
        except CorralError as error:
            missing = CorralError(error.where, error.what, _LOCK_IT)
            if self.unlocked is None:
                raise missing from error
            return self._at_hub(self.unlocked, model, quant, missing)

    def _at_hub(
        self,
        unlocked: Callable[[str, str], LockedModel],
        model: str,
        quant: str,
        missing: CorralError,
    ) -> tuple[LockedModel, tuple[LockedFile, ...]]:
        """What the hub has of a quant that is not locked. Raises CorralError."""
        try:
            found = unlocked(model, quant)
        except CorralError as error:
            what = f"{missing.what}; the hub was asked instead: {error.where}: {error.what}"
            step = f"{error.next_step}; or {missing.next_step}"
            raise CorralError(missing.where, what, step) from error
        return found, found.quants[quant]

    def size_bytes(self, model: str, quant: str) -> int:
        """The size of the files of a quant. Raises CorralError as ``read`` does."""
        files = self._locked(model, quant, f"{model}/{quant}")[1]
        return sum(file.size_bytes for file in files)
