"""Rendering of the text files of templates/, which only place values."""

from __future__ import annotations

from pathlib import Path

import jinja2


def text_environment(templates: Path) -> jinja2.Environment:
    """An environment for text templates; an undefined value is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - none of these is HTML
    )
