"""Reader of the header of a GGUF file, from its first bytes.

A header comes from the network, so the reader is strict: no content makes it allocate or loop
beyond `LONGEST_HEADER_BYTES`. Source: the GGUF specification and gguf.cpp of llama.cpp.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from corral.fit.ggml import tensor_bytes
from corral.model_files.errors import BadHeaderError, NeedMoreError

LONGEST_HEADER_BYTES = 256 * 1024**2
_VERSIONS = (2, 3)
_BIG_ENDIAN_VERSIONS = tuple(version << 24 for version in _VERSIONS)
_MOST_KEYS = 1000
_MOST_TENSORS = 100_000
_MOST_DIMENSIONS = 4
_LONGEST_KEY_BYTES = 65_535
# The engines store a name in 64 bytes with a terminating zero.
_LONGEST_NAME_BYTES = 63
_BIGGEST = 2**63
_ALIGNMENT_KEY = "general.alignment"
_DEFAULT_ALIGNMENT_BYTES = 32
_UINT32_TYPE = 4
# Longer than any array with one number per layer; shorter than a vocabulary.
_LONGEST_KEPT_ARRAY = 4096
_STRING = 8
_ARRAY = 9

_UINT32 = struct.Struct("<I")
_INT32 = struct.Struct("<i")
_UINT64 = struct.Struct("<Q")

Scalar = int | float | bool | str


@dataclass(frozen=True, slots=True)
class ArrayOf:
    """An array whose elements are not kept: the name of their type, and their number."""

    type: str
    count: int


Value = Scalar | tuple[int | float | bool, ...] | ArrayOf


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor; ``shape[0]``: length of a row; ``offset_bytes``: from the start of the data."""

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
    """Everything before the data of a GGUF file."""

    version: int
    metadata: dict[str, Value]
    tensors: tuple[Tensor, ...]
    data_start_bytes: int
    alignment_bytes: int

    @property
    def file_bytes(self) -> int:
        """The minimum size of the file; a writer may pad the last tensor."""
        ends = (tensor.offset_bytes + tensor.size_bytes for tensor in self.tensors)
        return self.data_start_bytes + max(ends, default=0)


def parse_header(data: bytes | bytearray | memoryview) -> Header:
    """Read the header at the start of ``data``, which may continue after it.

    Raises NeedMoreError when ``data`` ends before the header, else BadHeaderError for a header of
    no file that the engines could load.
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
        raise BadHeaderError(f"it is not a GGUF file, it starts with {magic!r}")
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
            raise BadHeaderError(f"the key {key} appears twice")
        type_id = source.uint32()
        if key == _ALIGNMENT_KEY and type_id != _UINT32_TYPE:
            raise BadHeaderError(f"{_ALIGNMENT_KEY} is not a uint32")
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
            raise BadHeaderError(f"tensor {name} appears twice")
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
    end_bytes, previous = 0, ""
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset_bytes):
        if tensor.offset_bytes % alignment_bytes:
            raise BadHeaderError(
                f"tensor {tensor.name} begins at byte {tensor.offset_bytes} of the data, "
                f"which is not a multiple of {alignment_bytes}"
            )
        if tensor.offset_bytes < end_bytes:
            raise BadHeaderError(f"tensors {previous} and {tensor.name} overlap")
        end_bytes, previous = tensor.offset_bytes + tensor.size_bytes, tensor.name


def read_value(source: Bytes, key: str, type_id: int) -> Value:
    """The value of ``key``: a number or string, a short array of numbers as a tuple, any other
    array as `ArrayOf`. Raises NeedMoreError and BadHeaderError.
    """
    if type_id == _STRING:
        return source.text(f"the value of {key}")
    if type_id == _ARRAY:
        return _array(source, key)
    return source.numbers(_number(key, type_id).layout())[0]


def _array(source: Bytes, key: str) -> Value:
    type_id, count = source.uint32(), source.uint64()
    if type_id == _STRING:
        source.skip_texts(count)
        return ArrayOf("string", count)
    if type_id == _ARRAY:
        raise BadHeaderError(f"{key} is an array of arrays, which no engine reads")
    number = _number(key, type_id)
    if count > _LONGEST_KEPT_ARRAY:
        source.skip(count * number.layout().size)
        return ArrayOf(number.name, count)
    return source.numbers(number.layout(count))


def _number(key: str, type_id: int) -> _Number:
    if type_id not in _NUMBERS:
        raise BadHeaderError(f"{key} has the unknown value type {type_id}")
    return _NUMBERS[type_id]


@dataclass(frozen=True, slots=True)
class _Number:
    """A number type: its name in the specification, and its code in the struct module."""

    name: str
    code: str

    def layout(self, count: int = 1) -> struct.Struct:
        return struct.Struct(f"<{count}{self.code}")


_NUMBERS = {
    0: _Number("uint8", "B"),
    1: _Number("int8", "b"),
    2: _Number("uint16", "H"),
    3: _Number("int16", "h"),
    4: _Number("uint32", "I"),
    5: _Number("int32", "i"),
    6: _Number("float32", "f"),
    7: _Number("bool", "?"),
    10: _Number("uint64", "Q"),
    11: _Number("int64", "q"),
    12: _Number("float64", "d"),
}


class Bytes:
    """A cursor in the first bytes of a file.

    Every method raises NeedMoreError past their end, BadHeaderError past LONGEST_HEADER_BYTES.
    """

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = memoryview(data)[:LONGEST_HEADER_BYTES]
        self.position = 0

    def skip(self, length: int) -> int:
        """Advance by ``length`` bytes; returns the previous position."""
        start = self.position
        self._require(start + length)
        self.position += length
        return start

    def numbers(self, layout: struct.Struct) -> tuple[int | float | bool, ...]:
        return layout.unpack_from(self._data, self.skip(layout.size))

    def uint32(self) -> int:
        return int(self.numbers(_UINT32)[0])

    def int32(self) -> int:
        return int(self.numbers(_INT32)[0])

    def uint64(self) -> int:
        return int(self.numbers(_UINT64)[0])

    def raw(self, length: int) -> bytes:
        start = self.skip(length)
        return bytes(self._data[start : start + length])

    def text(self, what: str) -> str:
        """A string with its length before it; ``what`` names it in errors."""
        return self._decoded(self.uint64(), what)

    def name(self, what: str, *, longest_bytes: int) -> str:
        """A string that errors may show unchanged: not empty, short and printable."""
        length = self.uint64()
        if not 0 < length <= longest_bytes:
            raise BadHeaderError(f"{what} has {length} bytes, not 1 to {longest_bytes}")
        name = self._decoded(length, what)
        if not name.isprintable():
            raise BadHeaderError(f"{what} is not printable: {name!a}")
        return name

    def skip_texts(self, count: int) -> None:
        """Skip ``count`` strings without reading them."""
        self._require(self.position + count * _UINT64.size)
        data, position, unpack_from = self._data, self.position, _UINT64.unpack_from
        try:
            for _ in range(count):
                position += 8 + unpack_from(data, position)[0]
        except (struct.error, OverflowError):
            position += 8  # the length that is past the end
        self._require(position)
        self.position = position

    def _decoded(self, length: int, what: str) -> str:
        try:
            return self.raw(length).decode()
        except UnicodeDecodeError as error:
            raise BadHeaderError(f"{what} is not UTF-8") from error

    def _require(self, end: int) -> None:
        if end > LONGEST_HEADER_BYTES:
            size_mib = LONGEST_HEADER_BYTES // 1024**2
            raise BadHeaderError(f"the header is longer than {size_mib} MiB")
        if end > len(self._data):
            raise NeedMoreError(end)
