"""The text files of templates/: templates place values, and decide nothing."""

from __future__ import annotations

from pathlib import Path

import jinja2


def text_environment(templates: Path) -> jinja2.Environment:
    """Templates of files that are not HTML; a value that is not given is an error."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - none of these is HTML
    )
