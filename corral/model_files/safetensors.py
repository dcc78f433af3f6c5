"""Reader of the header of a safetensors file, from its first bytes.

Eight bytes with the length of a JSON object, and that object: name -> type, shape and place in the
data. A header comes from the network, so the reader is as strict as the engines' own library.
Source: safetensors 0.6, `SafeTensors::read_metadata` and `Metadata::validate`.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from corral_shared.text import printable_line

from corral.model_files.errors import BadHeaderError, NeedMoreError

# All tensors of GLM-4.7 in one file would take 12 MB; the library itself reads 100 MB.
LONGEST_HEADER_BYTES = 32 * 1024**2
_LENGTH = struct.Struct("<Q")
_METADATA = "__metadata__"
_KEYS = {"dtype", "shape", "data_offsets"}
_LONGEST_NAME = 512
_MOST_DIMENSIONS = 8
_BIGGEST = 2**63
# Type -> bits of one element.
TYPE_BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "F4": 4,
    "U16": 16,
    "I16": 16,
    "F16": 16,
    "BF16": 16,
    "U32": 32,
    "I32": 32,
    "F32": 32,
    "U64": 64,
    "I64": 64,
    "F64": 64,
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor; ``shape``: rows first; ``start_bytes``: from the start of the data."""

    name: str
    type: str
    shape: tuple[int, ...]
    start_bytes: int

    @property
    def elements(self) -> int:
        """Number of its elements."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes of its data."""
        return self.elements * TYPE_BITS[self.type] // 8


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """Everything before the data of a safetensors file; tensors in the order of their data."""

    tensors: tuple[Tensor, ...]
    data_start_bytes: int

    @property
    def file_bytes(self) -> int:
        """The size of the file, exactly."""
        return self.data_start_bytes + sum(tensor.size_bytes for tensor in self.tensors)


def parse_safetensors(data: bytes | bytearray | memoryview) -> SafetensorsHeader:
    """Read the header at the start of ``data``, which may continue after it.

    Raises NeedMoreError when ``data`` ends before the header, else BadHeaderError for a header of
    no file that the engines could load.
    """
    if len(data) < _LENGTH.size:
        raise NeedMoreError(_LENGTH.size)
    (length,) = _LENGTH.unpack_from(data)
    if length > LONGEST_HEADER_BYTES:
        what = f"it claims a header of {length} bytes, more than {LONGEST_HEADER_BYTES}"
        raise BadHeaderError(f"it is not a safetensors file: {what}")
    end = _LENGTH.size + length
    if len(data) < end:
        raise NeedMoreError(end)
    entries = _entries(bytes(data[_LENGTH.size : end]))
    placed = [_tensor(name, entry) for name, entry in entries.items() if name != _METADATA]
    _check_metadata(entries.get(_METADATA, {}))
    tensors = sorted(placed, key=lambda tensor: (tensor.start_bytes, tensor.size_bytes))
    _check_layout(tensors)
    return SafetensorsHeader(tuple(tensors), end)


def _entries(text: bytes) -> dict[str, Any]:
    if not text.startswith(b"{"):
        raise BadHeaderError("it is not a safetensors file: its header is no JSON object")
    try:
        entries = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        what = printable_line(error)[:200]
        raise BadHeaderError(f"its header is not readable as JSON: {what}") from error
    if not isinstance(entries, dict):
        raise BadHeaderError("its header is no JSON object")
    return entries


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; of a name that appears twice a reader would silently keep one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BadHeaderError(f"{printable_line(twice)[:100]} appears twice")
    return found


def _check_metadata(metadata: Any) -> None:
    texts = isinstance(metadata, dict) and all(isinstance(v, str) for v in metadata.values())
    if not texts:
        raise BadHeaderError(f"{_METADATA} is not an object of texts")


def _tensor(name: str, entry: Any) -> Tensor:
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable():
        raise BadHeaderError(f"a tensor has the name {name[:100]!a}")
    if not isinstance(entry, dict) or set(entry) != _KEYS:
        raise BadHeaderError(f"tensor {name} has not the keys {', '.join(sorted(_KEYS))}")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in TYPE_BITS:
        raise BadHeaderError(f"tensor {name} has the unknown type {printable_line(kind)[:40]}")
    if not _whole_numbers(shape) or len(shape) > _MOST_DIMENSIONS:
        raise BadHeaderError(f"tensor {name} has an impossible shape")
    if not _whole_numbers(offsets) or len(offsets) != 2:
        raise BadHeaderError(f"tensor {name} has not two offsets")
    start, end = offsets
    tensor = Tensor(name, kind, tuple(shape), start)
    bits = tensor.elements * TYPE_BITS[kind]
    if bits % 8 or end - start != bits // 8:
        what = f"{kind} of shape {tensor.shape} takes {bits / 8:g} bytes"
        raise BadHeaderError(f"tensor {name} has {end - start} bytes, but {what}")
    return tensor


def _whole_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < _BIGGEST for v in values)


def _check_layout(tensors: Sequence[Tensor]) -> None:
    """Tensors cover the data without holes and without overlap, from its first byte on."""
    end_bytes = 0
    for tensor in tensors:
        if tensor.start_bytes != end_bytes:
            what = "overlaps another" if tensor.start_bytes < end_bytes else "follows a hole"
            raise BadHeaderError(f"tensor {tensor.name} {what}, at byte {tensor.start_bytes}")
        end_bytes += tensor.size_bytes
