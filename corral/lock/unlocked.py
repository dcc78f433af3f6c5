"""Models as a hub has them now, for questions about models that are in no lock file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from corral.catalog.entries import Model, Quant
from corral.errors import CorralError
from corral.lock.lock_file import LockedFile, LockedModel
from corral.lock.resolve import weights_of
from corral.lock.shards import SHARD
from corral.schema import parse
from corral.sources.hub import HubRevision, content, describe

# The tags that publishers of quants put at the end of names: Q4_K_M, UD-IQ2_XXS, BF16, MXFP4_MOE.
_TAG = re.compile(
    r"(?:^|[-._])((?:UD-)?(?:I?Q[0-9]\w*|TQ[0-9]_[0-9]|BF16|FP16|F16|F32|FP8|MXFP4\w*))$",
    re.IGNORECASE,
)
# Files in GGUF that are no model to serve alone.
_BESIDE = re.compile(r"(^|[-._])(mmproj|imatrix|vocab)", re.IGNORECASE)
_WHOLE = "safetensors"
# Unknown before a header is read; longer than any model's.
_ANY_CONTEXT_TOKENS = 2**30


@dataclass(frozen=True)
class HubModel:
    """A model at a hub. Its methods raise CorralError where the hub does not have it.

    + name: in the catalog, or its repository; + in_catalog: whether the catalog has it
    """

    name: str
    model: Model
    hub_url: str
    in_catalog: bool = True

    @cached_property
    def revision(self) -> HubRevision:
        """Its repository now."""
        try:
            return describe(self.name, self.model, self.hub_url)
        except CorralError as error:
            if self.in_catalog:
                raise
            step = (
                "check its name, and that the hub can be reached; a gated repository needs HF_TOKEN"
            )
            raise CorralError(self.model.repo, error.what, step) from error

    def entry(self, quant: str) -> LockedModel:
        """A quant as a lock file would have it, of small files config.json alone."""
        found = weights_of(self.name, self.model, quant, self.revision)
        files = [*found, *self._config(found)]
        data = {
            "repo": self.model.repo,
            "requested": self.model.revision,
            "revision": self.revision.sha,
            "patterns": {quant: self.model.quants[quant].patterns},
            "quants": {quant: files},
        }
        where = f"{self.model.repo}: the hub's answer"
        return parse(LockedModel, data, where=where, next_step="name another repository")

    def _config(self, weights: Collection[LockedFile]) -> Iterator[LockedFile]:
        """The file that describes weights in safetensors."""
        first = PurePosixPath(next(iter(weights)).path)
        if first.suffix != f".{_WHOLE}":
            return
        path = str(first.with_name("config.json"))
        data = content(self.model, self.hub_url, self.revision.sha, path, where=self.model.repo)
        yield LockedFile(
            path=path,
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            kind="config",
        )


def hub_model(repository: str, hub_url: str, *, gated: bool) -> HubModel:
    """A repository that the catalog does not have, with the quants that its file names tell.

    + gated: whether to send the operator's token. Raises CorralError.
    """
    data = {
        "repo": repository,
        "gated": gated,
        "train_context_tokens": _ANY_CONTEXT_TOKENS,
        "quants": {"-": {"files": "-"}},
    }
    step = "name a model of catalog/models/, or a repository as ORGANISATION/NAME"
    placeholder = parse(Model, data, where=repository, next_step=step)
    repo = placeholder.repo
    found = HubModel(repo, placeholder, hub_url, in_catalog=False)
    paths = [file.rfilename for file in found.revision.siblings if file.lfs]
    quants = quants_in(paths, repo)
    if not quants:
        what = "has no model in GGUF or safetensors"
        raise CorralError(repo, what, "name a repository with weights in one of these formats")
    whole = HubModel(repo, placeholder.model_copy(update={"quants": quants}), hub_url, False)
    # Asked once.
    whole.__dict__["revision"] = found.revision
    return whole


def quants_in(paths: Collection[str], repository: str) -> dict[str, Quant]:
    """Quants by the names of files: one for each set of shards in GGUF, else all safetensors."""
    tagged: dict[str, dict[str, str]] = {}
    for path in sorted(paths):
        stem, pattern = _set_of(path)
        if path.endswith(".gguf") and not _BESIDE.search(PurePosixPath(stem).name):
            tagged.setdefault(_tag(stem), {})[stem] = pattern
    found = {
        tag if len(patterns) == 1 else stem: Quant(files=pattern)
        for tag, patterns in tagged.items()
        for stem, pattern in patterns.items()
    }
    whole = [p for p in paths if p.endswith(f".{_WHOLE}") and "/" not in p]
    if whole and not found:
        numbered = [path for path in whole if path.startswith("model")]
        files = f"model*.{_WHOLE}" if numbered else f"*.{_WHOLE}"
        tag = _tag(repository.rpartition("/")[2])
        name = tag if _TAG.search(repository) else _WHOLE
        return {name: Quant(files=files, config=("config.json",))}
    return found


def _set_of(path: str) -> tuple[str, str]:
    """The name of a file, or of all shards of its set, without suffix; and a pattern of them."""
    match = SHARD.fullmatch(path)
    if not match:
        return path.removesuffix(".gguf"), _escaped(path)
    return match["stem"], f"{_escaped(match['stem'])}-*-of-{match['count']}.{match['suffix']}"


def _escaped(path: str) -> str:
    return re.sub(r"([\[*?])", r"[\1]", path)


def _tag(stem: str) -> str:
    """The quant of a file name, or the whole name."""
    name = PurePosixPath(stem).name
    match = _TAG.search(name)
    return match[1] if match else name
