"""Shard sets: files that are numbered parts of one model.

Names as of llama.cpp's gguf-split, and of the hub's own library for safetensors.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

SHARD = re.compile(
    r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.(?P<suffix>gguf|safetensors)"
)
_NAMES_SHOWN = 3


def shard_set_problem(paths: Sequence[str]) -> str | None:
    """Why ``paths`` are not one complete model: neither one file nor every shard of one set."""
    sets: dict[str, list[str]] = {}
    for path in paths:
        sets.setdefault(_set_of(path), []).append(path)
    if len(sets) > 1:
        return f"matches {len(sets)} different models: {listed(sorted(sets))}"
    missing = [path for path in _expected(paths[0]) if path not in set(paths)]
    return f"matches a set of shards without {listed(missing)}" if missing else None


def _set_of(path: str) -> str:
    match = SHARD.fullmatch(path)
    return f"{match['stem']}-*-of-{match['count']}.{match['suffix']}" if match else path


def _expected(path: str) -> list[str]:
    """Every file of the set that ``path`` belongs to; shards count from 1."""
    match = SHARD.fullmatch(path)
    if not match:
        return [path]
    numbers = range(1, int(match["count"]) + 1)
    return [
        f"{match['stem']}-{number:05}-of-{match['count']}.{match['suffix']}" for number in numbers
    ]


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
