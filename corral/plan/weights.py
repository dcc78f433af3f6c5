"""Files of weights as planned: where they come from, where they go, what their bytes must be."""

from __future__ import annotations

from corral.catalog.entries import FileKind
from corral.schema import Frozen


class HeaderPlan(Frozen):
    """The header at the start of a shard, all bytes before its data; sha256 of those bytes."""

    size_bytes: int
    sha256: str


class ShardPlan(Frozen):
    """One file of a model: where it comes from, where it goes, what its bytes must be.

    ``header`` is None when the hub could not be asked for it, and for what has no GGUF header.
    + kind: weights, or what stands beside them, such as a configuration and a tokenizer
    + gated: the hub gives it to who has the operator's token; that itself stands in no plan
    """

    url: str
    revision: str
    path: str
    size_bytes: int
    sha256: str
    header: HeaderPlan | None = None
    gated: bool = False
    kind: FileKind = "weights"
