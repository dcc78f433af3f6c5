"""The header of a GGUF file: what is in it, read from its first bytes.

Strict, since a header comes from the network: nothing in it makes the reader allocate or loop
beyond `LONGEST_HEADER_BYTES`. Source: the GGUF specification and gguf.cpp of llama.cpp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from corral.fit.ggml import tensor_bytes
from corral.fit.gguf_bytes import BadHeaderError, Bytes, NeedMoreError
from corral.fit.gguf_values import ArrayOf, Scalar, Value, read_value

__all__ = [
    "ArrayOf", "BadHeaderError", "Header", "NeedMoreError", "Scalar", "Tensor", "Value",
    "parse_header",
]  # fmt: skip

_VERSIONS = (2, 3)
_BIG_ENDIAN_VERSIONS = tuple(version << 24 for version in _VERSIONS)
_MOST_KEYS = 1000
_MOST_TENSORS = 100_000
_MOST_DIMENSIONS = 4
_LONGEST_KEY_BYTES = 65_535
# The engines keep a name in 64 bytes, with a zero at its end.
_LONGEST_NAME_BYTES = 63
_BIGGEST = 2**63
_ALIGNMENT_KEY = "general.alignment"
_DEFAULT_ALIGNMENT_BYTES = 32
_UINT32 = 4


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: ``shape[0]`` is the length of a row; the offset counts from the data's start."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset_bytes: int

    @property
    def size_bytes(self) -> int:
        """Bytes of its data, without padding."""
        return tensor_bytes(self.type_id, self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """All that stands before the data of a GGUF file."""

    version: int
    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]
    data_start_bytes: int
    alignment_bytes: int

    @property
    def file_bytes(self) -> int:
        """The least size of the whole file; writers may pad the last tensor, readers need not."""
        ends = (tensor.offset_bytes + tensor.size_bytes for tensor in self.tensors)
        return self.data_start_bytes + max(ends, default=0)


def parse_header(data: bytes | bytearray | memoryview) -> Header:
    """Read the header at the start of ``data``, which may go on after it.

    Raises NeedMoreError when ``data`` ends before the header does, else BadHeaderError for
    anything that is no header of a file that the engines could load.
    """
    source = Bytes(data)
    version = _version(source)
    tensor_count = _count(source, "tensors", _MOST_TENSORS)
    key_count = _count(source, "keys", _MOST_KEYS)
    metadata = _metadata(source, key_count)
    alignment_bytes = _alignment(metadata)
    tensors = _tensors(source, tensor_count)
    _check_layout(tensors, alignment_bytes)
    if tensors:  # a file without tensors may end right here
        source.skip(-source.position % alignment_bytes)
    return Header(version, metadata, tensors, source.position, alignment_bytes)


def _version(source: Bytes) -> int:
    magic = source.raw(4)
    if magic != b"GGUF":
        raise BadHeaderError(f"it is no GGUF file, it starts with {magic!r}")
    version = source.uint32()
    if version in _BIG_ENDIAN_VERSIONS:
        raise BadHeaderError("it is a big-endian GGUF file, which no engine here can load")
    if version not in _VERSIONS:
        raise BadHeaderError(f"it is of GGUF version {version}, only 2 and 3 can be read")
    return version


def _count(source: Bytes, what: str, most: int) -> int:
    count = source.uint64()
    if count > most:
        raise BadHeaderError(f"the header claims {count} {what}, more than {most}")
    return count


def _metadata(source: Bytes, count: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    for number in range(count):
        key = source.name(f"key {number}", longest_bytes=_LONGEST_KEY_BYTES)
        if key in metadata:
            raise BadHeaderError(f"the key {key} stands there twice")
        type_id = source.uint32()
        if key == _ALIGNMENT_KEY and type_id != _UINT32:
            raise BadHeaderError(f"{_ALIGNMENT_KEY} is no uint32")
        metadata[key] = read_value(source, key, type_id)
    return metadata


def _alignment(metadata: dict[str, Value]) -> int:
    alignment = metadata.get(_ALIGNMENT_KEY, _DEFAULT_ALIGNMENT_BYTES)
    if not isinstance(alignment, int) or alignment.bit_count() != 1:
        raise BadHeaderError(f"{_ALIGNMENT_KEY} is {alignment!r}, not a power of two")
    return alignment


def _tensors(source: Bytes, count: int) -> tuple[Tensor, ...]:
    tensors: dict[str, Tensor] = {}
    for number in range(count):
        name = source.name(f"the name of tensor {number}", longest_bytes=_LONGEST_NAME_BYTES)
        if name in tensors:
            raise BadHeaderError(f"tensor {name} stands there twice")
        tensors[name] = _tensor(source, name)
    return tuple(tensors.values())


def _tensor(source: Bytes, name: str) -> Tensor:
    dimensions = source.uint32()
    if not 1 <= dimensions <= _MOST_DIMENSIONS:
        raise BadHeaderError(f"tensor {name} has {dimensions} dimensions, not 1 to 4")
    shape = tuple(source.uint64() for _ in range(dimensions))
    if not 0 < math.prod(shape) < _BIGGEST:
        raise BadHeaderError(f"tensor {name} has the impossible shape {shape}")
    tensor = Tensor(name, shape, source.int32(), source.uint64())
    try:
        end_bytes = tensor.offset_bytes + tensor.size_bytes
    except ValueError as error:
        raise BadHeaderError(f"tensor {name} has {error}") from error
    if end_bytes >= _BIGGEST:
        raise BadHeaderError(f"tensor {name} ends at byte {end_bytes}, beyond any file")
    return tensor


def _check_layout(tensors: tuple[Tensor, ...], alignment_bytes: int) -> None:
    end_bytes, before = 0, ""
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset_bytes):
        if tensor.offset_bytes % alignment_bytes:
            raise BadHeaderError(
                f"tensor {tensor.name} begins at byte {tensor.offset_bytes} of the data, "
                f"which is no multiple of {alignment_bytes}"
            )
        if tensor.offset_bytes < end_bytes:
            raise BadHeaderError(f"tensors {before} and {tensor.name} overlap")
        end_bytes, before = tensor.offset_bytes + tensor.size_bytes, tensor.name
