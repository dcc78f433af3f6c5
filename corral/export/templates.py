"""Templates of exports: they place values, and decide nothing."""

from __future__ import annotations

from pathlib import Path

from corral.export.quoting import yaml
from corral.templating import text_environment


def render(name: str, templates: Path, **values: object) -> str:
    """The text of templates/``name`` with these values in their places."""
    environment = text_environment(templates)
    environment.filters["yaml"] = yaml
    return environment.get_template(name).render(**values)
