"""Safetensors files for tests: the header as given, and data of the size that it states."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

from corral.model_files.safetensors import TYPE_BITS

Shape = tuple[int, ...]
Entries = Mapping[str, Any]


def raw_header(text: bytes) -> bytes:
    """The bytes before the data; ``text`` is the JSON."""
    return struct.pack("<Q", len(text)) + text


def entries(tensors: Mapping[str, tuple[str, Shape]]) -> dict[str, Any]:
    """One entry for each tensor, one behind the other."""
    found, end = {}, 0
    for name, (kind, shape) in tensors.items():
        start, end = end, end + math.prod(shape) * TYPE_BITS[kind] // 8
        found[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    return found


def header_of(tensors: Mapping[str, tuple[str, Shape]]) -> bytes:
    """The bytes before the data, with the metadata that transformers writes."""
    document = {"__metadata__": {"format": "pt"}, **entries(tensors)}
    return raw_header(json.dumps(document).encode())


def data_bytes(tensors: Mapping[str, tuple[str, Shape]]) -> int:
    """Bytes of the data of ``tensors``."""
    return sum(math.prod(shape) * TYPE_BITS[kind] // 8 for kind, shape in tensors.values())
