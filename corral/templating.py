"""Rendering of the files of templates/, which only place values."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import jinja2
from corral_shared.text import printable
from markupsafe import Markup


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


@cache
def page_environment(templates: Path) -> jinja2.Environment:
    """An environment for HTML: every value is escaped, and printable."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _printable(value: object) -> object:
    """Remove control characters of servers' texts, which could hide or reverse the page's text."""
    if isinstance(value, Markup):
        return Markup(printable(value))  # noqa: S704 - it is escaped already
    return printable(value) if isinstance(value, str) else value
