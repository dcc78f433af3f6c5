"""Rendering of the text files of templates/, which only place values."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import jinja2


@cache
def text_environment(templates: Path, **filters: Callable[[str], str]) -> jinja2.Environment:
    """An environment for text templates; an undefined value is an error.

    It is made once, as it keeps the templates that it has compiled: each costs as much processor
    time as the plan of an instance. It reads a file again that has changed.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - none of these is HTML
    )
    environment.filters.update(filters)
    return environment
