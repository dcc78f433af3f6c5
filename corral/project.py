"""The folders of a project: a checkout of Corral, or a fleet's own folder."""

from __future__ import annotations

from pathlib import Path

from corral.errors import CorralError
from corral.product import product_of

LOCK_FILE = "corral.lock"


def project_root(start: Path | None = None) -> Path:
    """The folder with deploy.py and catalog/, from ``start`` upward. Raises CorralError."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "deploy.py").is_file() and (folder / "catalog").is_dir():
            return folder
    what = "not inside a Corral checkout, nor in a fleet's own folder"
    step = "cd to the folder with deploy.py, or make one: `corral init FOLDER`"
    raise CorralError(str(here), what, step)


def helper_package(root: Path) -> Path:
    """The folder with the sources of the host helper."""
    return product_of(root) / "files" / "corral_host"


def templates(root: Path) -> Path:
    """The folder with the templates of files that Corral writes."""
    return product_of(root) / "templates"
