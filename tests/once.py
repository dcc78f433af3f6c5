"""Work of whose result tests need another copy, not another one: by its very input."""

from __future__ import annotations

from typing import Any

import jinja2
import pytest

from corral.catalog import entries, inheritance
from corral.catalog.layers import Found, read_toml


def parsed_and_compiled_once(patch: pytest.MonkeyPatch) -> None:
    """A file of a catalog with the same text is parsed once, and a template compiled once.

    Mistakes are found each time.
    """
    patch.setattr(entries, "_read", _read(entries._read))
    patch.setattr(inheritance, "read_toml", _read(read_toml))
    patch.setattr(jinja2.Environment, "compile", _compile(jinja2.Environment.compile))


def _read(original: Any) -> Any:
    """What is read is frozen: all may have the same one."""
    known: dict[tuple[bytes, tuple[type, ...], str], Any] = {}

    def read(file: Found, *schema: type) -> Any:
        try:
            key = file.path.read_bytes(), schema, file.where
        except OSError:
            return original(file, *schema)
        if key not in known:
            known[key] = original(file, *schema)
        return known[key]

    return read


def _compile(original: Any) -> Any:
    known: dict[tuple[object, ...], Any] = {}

    def compiled(
        self: jinja2.Environment, source: Any, name: Any = None, filename: Any = None, **how: Any
    ) -> Any:
        spelled = (type(self), self.trim_blocks, self.lstrip_blocks, self.keep_trailing_newline)
        # Without the file's name: copies of a checkout have the same templates elsewhere.
        key = (source, name, *spelled, self.autoescape, *sorted(how.items()))
        if key not in known:
            known[key] = original(self, source, name, filename, **how)
        return known[key]

    return compiled
