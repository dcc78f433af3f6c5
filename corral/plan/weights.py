"""Files of a model as planned: source, path on the host, size and digest."""

from __future__ import annotations

from corral.catalog.entries import FileKind
from corral.schema import Frozen


class HeaderPlan(Frozen):
    """The header of a shard, all bytes before its data, and the digest of those bytes."""

    size_bytes: int
    sha256: str


class ShardPlan(Frozen):
    """One file of a model: source, path on the host, size and digest.

    + header: None where the hub did not answer, and for files without a GGUF header
    + kind: weights, or a small file beside them, such as a configuration or a tokenizer
    + gated: the hub requires the operator's token, which no plan contains
    """

    url: str
    revision: str
    path: str
    size_bytes: int
    sha256: str
    header: HeaderPlan | None = None
    gated: bool = False
    kind: FileKind = "weights"
