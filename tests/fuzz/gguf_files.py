"""Write small GGUF headers, valid or not, and write a parsed one again."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from corral.fit.ggml import tensor_bytes
from corral.fit.gguf import ArrayOf, Header, Tensor, Value

UINT8, BOOL, STRING, ARRAY = 0, 7, 8, 9
NUMBER_CODES = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_NAMES = {
    "uint8": 0, "int8": 1, "uint16": 2, "int16": 3, "uint32": 4, "int32": 5, "float32": 6,
    "bool": 7, "string": 8, "uint64": 10, "int64": 11, "float64": 12,
}  # fmt: skip
UINT32, FLOAT32, UINT64, INT64, FLOAT64 = 4, 6, 10, 11, 12

Plain = int | float | bool | str | bytes


@dataclass(frozen=True)
class Key:
    """A key, its value's type and value; with ``element_type`` the value is an array of those."""

    name: str | bytes
    type_id: int
    value: Plain | Sequence[Plain]
    element_type: int = 0


@dataclass(frozen=True)
class File:
    """What to write; the counts are those of the lists unless given."""

    keys: Sequence[Key] = ()
    tensors: Sequence[Tensor] = ()
    alignment_bytes: int = 32
    version: int = 3
    magic: bytes = b"GGUF"
    key_count: int | None = None
    tensor_count: int | None = None


@dataclass
class Written:
    """The bytes, and (position, length) of each integer that gives the file its structure."""

    data: bytearray = field(default_factory=bytearray)
    places: list[tuple[int, int]] = field(default_factory=list)

    def integer(self, code: str, value: int) -> None:
        packed = struct.pack(f"<{code}", value)
        self.places.append((len(self.data), len(packed)))
        self.data += packed

    def text(self, text: str | bytes | Plain) -> None:
        raw = text if isinstance(text, bytes) else str(text).encode()
        self.integer("Q", len(raw))
        self.data += raw

    def value(self, type_id: int, value: Plain) -> None:
        if type_id == STRING:
            self.text(value)
        elif type_id in NUMBER_CODES:
            self.data += struct.pack(f"<{NUMBER_CODES[type_id]}", value)


def write(file: File) -> Written:
    """The header of ``file``, padded to its alignment when there are tensors."""
    out = Written()
    out.data += file.magic
    out.integer("I", file.version)
    out.integer("Q", len(file.tensors) if file.tensor_count is None else file.tensor_count)
    out.integer("Q", len(file.keys) if file.key_count is None else file.key_count)
    for key in file.keys:
        _write_key(out, key)
    for tensor in file.tensors:
        _write_tensor(out, tensor)
    if file.tensors:
        out.data += bytes(-len(out.data) % file.alignment_bytes)
    return out


def _write_key(out: Written, key: Key) -> None:
    out.text(key.name)
    out.integer("I", key.type_id)
    if key.type_id != ARRAY:
        assert not isinstance(key.value, Sequence) or isinstance(key.value, str | bytes)
        out.value(key.type_id, key.value)
        return
    assert isinstance(key.value, Sequence)
    out.integer("I", key.element_type)
    out.integer("Q", len(key.value))
    for element in key.value:
        out.value(key.element_type, element)


def _write_tensor(out: Written, tensor: Tensor) -> None:
    out.text(tensor.name)
    out.integer("I", len(tensor.shape))
    for length in tensor.shape:
        out.integer("Q", length)
    out.integer("i", tensor.type_id)
    out.integer("Q", tensor.offset_bytes)


def placed(
    tensors: Sequence[tuple[str, tuple[int, ...], int]], alignment_bytes: int = 32
) -> list[Tensor]:
    """Tensors of (name, shape, type) one after the other, as writers place them."""
    result, offset_bytes = [], 0
    for name, shape, type_id in tensors:
        result.append(Tensor(name, shape, type_id, offset_bytes))
        offset_bytes += tensor_bytes(type_id, shape)
        offset_bytes += -offset_bytes % alignment_bytes
    return result


def written_again(header: Header) -> bytes:
    """A header that reads as ``header`` does; numbers may be of a wider type than before."""
    keys = [_key(name, value) for name, value in header.metadata.items()]
    again = File(keys, header.tensors, header.alignment_bytes, header.version)
    return bytes(write(again).data)


def _key(name: str, value: Value) -> Key:
    if isinstance(value, ArrayOf):
        type_id = _NAMES[value.type]
        empty: Plain = "" if type_id == STRING else 0
        return Key(name, ARRAY, [empty] * value.count, type_id)
    if isinstance(value, tuple):
        return Key(name, ARRAY, value, _wide_type(value[0], min(value)) if value else UINT8)
    if name == "general.alignment":
        return Key(name, UINT32, value)
    return Key(name, _wide_type(value, value), value)


def _wide_type(value: Plain, least: Plain) -> int:
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, str):
        return STRING
    if isinstance(value, float):
        return FLOAT64
    return INT64 if isinstance(least, int) and least < 0 else UINT64
