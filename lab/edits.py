"""Change files temporarily."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written(path: Path, text: str) -> Iterator[None]:
    """Give a file another text until the block ends."""
    before = path.read_text()
    path.write_text(text)
    try:
        yield
    finally:
        path.write_text(before)


@contextmanager
def edited(path: Path, old: str, new: str) -> Iterator[None]:
    """Replace text in a file until the block ends."""
    before = path.read_text()
    if old not in before:
        raise ValueError(f"{old!r} is not in {path}")
    with written(path, before.replace(old, new)):
        yield
