"""A model for corral.fit: the tensors of all its shards, and its dimensions where known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

from corral.fit.gguf import Header, Tensor, Value
from corral.fit.projector import Projector
from corral.fit.shape import Shape, UnknownShapeError, read_shape
from corral.fit.vocabulary import Vocabulary, read_vocabulary


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model; ``shape``: None where the header is insufficient; ``unknown``: what it lacks.

    + projector: that its server loads beside it, for images
    + draft: a model that drafts tokens for it; + adapters_bytes: of LoRA adapters
    + arch, mtp_blocks, vocabulary: as the header says, also of a model that is unknown
    """

    tensors: tuple[Tensor, ...]
    shape: Shape | None
    unknown: str
    file_bytes: int
    projector: Projector | None = None
    draft: ModelFile | None = None
    adapters_bytes: int = 0
    arch: str = ""
    mtp_blocks: int = 0
    vocabulary: Vocabulary = field(default_factory=Vocabulary)

    @property
    def blocks(self) -> int:
        """Number of blocks, from the header or the names of the tensors."""
        if self.shape:
            return self.shape.blocks
        numbers = [t.name.split(".")[1] for t in self.tensors if t.name.startswith("blk.")]
        return 1 + max((int(n) for n in numbers if n.isdigit()), default=-1)

    @property
    def layers(self) -> int:
        """Number of blocks without MTP blocks."""
        return self.shape.layers if self.shape else self.blocks


def model_file(headers: Sequence[Header]) -> ModelFile:
    """A model from the headers of its shards; the first has the keys."""
    try:
        shape, unknown = read_shape(headers[0]), ""
    except UnknownShapeError as error:
        shape, unknown = None, str(error)
    return ModelFile(
        tensors=tuple(tensor for header in headers for tensor in header.tensors),
        shape=shape,
        unknown=unknown,
        file_bytes=sum(header.file_bytes for header in headers),
        **_stated(headers[0].metadata),
    )


def _stated(metadata: Mapping[str, Value]) -> _Stated:
    arch = metadata.get("general.architecture")
    blocks = metadata.get(f"{arch}.nextn_predict_layers")
    return _Stated(
        arch=arch if isinstance(arch, str) else "",
        mtp_blocks=blocks if isinstance(blocks, int) else 0,
        vocabulary=read_vocabulary(metadata),
    )


class _Stated(TypedDict):
    arch: str
    mtp_blocks: int
    vocabulary: Vocabulary
