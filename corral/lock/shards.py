"""Shard sets: files whose names say that they are parts of one model.

Named by llama.cpp's gguf-split, and by the hub's own library for safetensors.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_SHARD = re.compile(
    r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.(?P<suffix>gguf|safetensors)"
)
_TOLD = 3


def shard_set_problem(paths: Sequence[str]) -> str | None:
    """Why ``paths`` are not one model, whole: either one file, or every shard of one set."""
    sets: dict[str, list[str]] = {}
    for path in paths:
        sets.setdefault(_set_of(path), []).append(path)
    if len(sets) > 1:
        return f"matches {len(sets)} different models: {_list(sorted(sets))}"
    there = set(paths)
    missing = [path for path in _expected(paths[0]) if path not in there]
    return f"matches a set of shards without {_list(missing)}" if missing else None


def _set_of(path: str) -> str:
    found = _SHARD.fullmatch(path)
    return f"{found['stem']}-*-of-{found['count']}.{found['suffix']}" if found else path


def _expected(path: str) -> list[str]:
    """Every file of the set that ``path`` belongs to; shards count from 1."""
    found = _SHARD.fullmatch(path)
    if not found:
        return [path]
    numbers = range(1, int(found["count"]) + 1)
    return [
        f"{found['stem']}-{number:05}-of-{found['count']}.{found['suffix']}" for number in numbers
    ]


def _list(names: Sequence[str]) -> str:
    more = len(names) - _TOLD
    return ", ".join(names[:_TOLD]) + (f" and {more} more" if more > 0 else "")
