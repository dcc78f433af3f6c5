"""A checkout of Corral as a whole: its catalog, lock file, inventories and templates."""

from __future__ import annotations

from pathlib import Path

from corral.catalog.entries import load_catalog
from corral.errors import CorralError
from corral.fit.headers import HeaderStore, default_headers_folder
from corral.lock.lock_file import read_lock
from corral.paths import HOST_PATHS
from corral.planning.planner import Planner

LOCK_FILE = "corral.lock"


def project_root(start: Path | None = None) -> Path:
    """The folder with deploy.py and catalog/, from ``start`` upward. Raises CorralError."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "deploy.py").is_file() and (folder / "catalog").is_dir():
            return folder
    raise CorralError(str(here), "not inside a Corral checkout", "cd to the folder with deploy.py")


def helper_package(root: Path) -> Path:
    """Sources of the host helper."""
    return root / "files" / "corral_host"


def load_planner(root: Path, *, tolerant: bool = False) -> Planner:
    """Read catalog and lock file. Raises CorralError.

    + tolerant: see ``load_catalog``
    """
    return Planner(
        catalog=load_catalog(root / "catalog", tolerant=tolerant),
        lock=read_lock(root / LOCK_FILE),
        paths=HOST_PATHS,
        templates=root / "templates",
        headers=HeaderStore(default_headers_folder()),
    )
