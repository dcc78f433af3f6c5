"""A safetensors header as stored on the controller: a digest line, then one line of JSON.

Not the raw bytes: their names repeat in each tensor.
"""

from __future__ import annotations

from dataclasses import dataclass

from corral.fit.header_file import sealed, unsealed
from corral.model_files.safetensors import SafetensorsHeader, Tensor

# Part of the digest, so that a file of another format counts as damaged and is fetched again.
_FORMAT = b"corral safetensors header 1\n"


@dataclass(frozen=True, slots=True)
class StoredSafetensors:
    """A header, and the sha256 of its raw bytes, those before ``header.data_start_bytes``."""

    header: SafetensorsHeader
    header_sha256: str


def encode(stored: StoredSafetensors) -> bytes:
    """The bytes to store."""
    header = stored.header
    document = {
        "header_sha256": stored.header_sha256,
        "tensors": [(t.name, t.type, t.shape, t.start_bytes) for t in header.tensors],
        "data_start_bytes": header.data_start_bytes,
    }
    return sealed(_FORMAT, document)


def decode(content: bytes) -> StoredSafetensors | None:
    """The header in bytes of `encode`, or None for other bytes."""
    document = unsealed(_FORMAT, content)
    if document is None:
        return None
    tensors = (
        Tensor(name, kind, tuple(shape), start) for name, kind, shape, start in document["tensors"]
    )
    header = SafetensorsHeader(tuple(tensors), document["data_start_bytes"])
    return StoredSafetensors(header, document["header_sha256"])
