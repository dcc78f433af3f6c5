"""A GGUF header as stored on the controller: a digest line, then one line of JSON.

Not the raw bytes: they are mostly vocabulary, and slower to parse.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from corral.fit.gguf import ArrayOf, Header, Tensor, Value

# Part of the digest, so that a file of another format counts as damaged and is fetched again.
_FORMAT = b"corral header 1\n"


@dataclass(frozen=True, slots=True)
class StoredHeader:
    """A header, and the sha256 of its raw bytes, those before ``header.data_start_bytes``."""

    header: Header
    header_sha256: str


def encode(stored: StoredHeader) -> bytes:
    """The bytes to store."""
    header = stored.header
    document = {
        "header_sha256": stored.header_sha256,
        "version": header.version,
        "metadata": {key: _plain(value) for key, value in header.metadata.items()},
        "tensors": [(t.name, t.shape, t.type_id, t.offset_bytes) for t in header.tensors],
        "data_start_bytes": header.data_start_bytes,
        "alignment_bytes": header.alignment_bytes,
    }
    return sealed(_FORMAT, document)


def decode(content: bytes) -> StoredHeader | None:
    """The header in bytes of `encode`, or None for other bytes."""
    document = unsealed(_FORMAT, content)
    if document is None:
        return None
    header = Header(
        version=document["version"],
        metadata={key: _value(plain) for key, plain in document["metadata"].items()},
        tensors=tuple(
            Tensor(name, tuple(shape), type_id, offset_bytes)
            for name, shape, type_id, offset_bytes in document["tensors"]
        ),
        data_start_bytes=document["data_start_bytes"],
        alignment_bytes=document["alignment_bytes"],
    )
    return StoredHeader(header, document["header_sha256"])


def sealed(form: bytes, document: dict[str, Any]) -> bytes:
    """A stored file of format ``form``: the digest of both, then the document."""
    body = json.dumps(document, separators=(",", ":")).encode()
    return _digest(form, body) + b"\n" + body


def unsealed(form: bytes, content: bytes) -> dict[str, Any] | None:
    """The document in bytes of `sealed`, or None for other bytes or another format."""
    found, _, body = content.partition(b"\n")
    if found != _digest(form, body):
        return None
    document: dict[str, Any] = json.loads(body)
    return document


def _digest(form: bytes, body: bytes) -> bytes:
    return hashlib.sha256(form + body).hexdigest().encode()


def _plain(value: Value) -> object:
    return asdict(value) if isinstance(value, ArrayOf) else value


def _value(plain: Any) -> Value:
    if isinstance(plain, dict):
        return ArrayOf(**plain)
    value: Value = tuple(plain) if isinstance(plain, list) else plain
    return value
