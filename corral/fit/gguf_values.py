"""Values of a GGUF header's keys."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from corral.fit.gguf_bytes import BadHeaderError, Bytes

Scalar = int | float | bool | str

# Longer than any array of one number a layer; shorter than a vocabulary.
_LONGEST_KEPT_ARRAY = 4096
_STRING = 8
_ARRAY = 9


@dataclass(frozen=True, slots=True)
class ArrayOf:
    """An array whose elements are not kept: the name of their type, and how many there are."""

    type: str
    count: int


Value = Scalar | tuple[int | float | bool, ...] | ArrayOf


@dataclass(frozen=True, slots=True)
class _Number:
    """Its name in the specification, and as the struct module has it."""

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


def read_value(source: Bytes, key: str, type_id: int) -> Value:
    """The value of ``key``: numbers and strings as they are, arrays of numbers as tuples when
    short, other arrays as `ArrayOf`. Raises NeedMoreError and BadHeaderError.
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
