"""YAML for other programs to read: every text is a double-quoted scalar, which JSON has, too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def yaml_text(document: Mapping[str, Any]) -> str:
    """A document of mappings, lists and scalars as YAML."""
    return "\n".join(_lines(document, "")) + "\n"


def _lines(value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _entry(f"{indent}{key}:", one, f"{indent}  ")
    else:
        for one in value:
            first, *others = _lines(one, f"{indent}  ") if _is_block(one) else [json.dumps(one)]
            yield f"{indent}- {first.strip()}"
            yield from others


def _entry(name: str, value: Any, indent: str) -> Iterator[str]:
    if _is_block(value):
        yield name
        yield from _lines(value, indent)
    else:
        yield f"{name} {json.dumps(value)}"


def _is_block(value: Any) -> bool:
    if isinstance(value, (str, bytes)) or not isinstance(value, (Mapping, Sequence)):
        return False
    return bool(value)
