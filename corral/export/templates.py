"""Templates of exports: they place values, and decide nothing."""

from __future__ import annotations

from pathlib import Path

import jinja2

from corral.export.quoting import yaml


def render(name: str, templates: Path, **values: object) -> str:
    """The text of templates/``name`` with these values in their places."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - none of these is HTML
    )
    environment.filters["yaml"] = yaml
    return environment.get_template(name).render(**values)
