"""A Corral checkout: its catalog, lock file, inventories and templates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from corral.catalog.entries import Catalog, load_catalog
from corral.engines import kinds
from corral.errors import CorralError
from corral.fit.headers import HeaderStore
from corral.lock.lock_file import read_lock
from corral.lock.requirements import RequirementsFiles
from corral.paths import HOST_PATHS, default_headers_folder
from corral.planning.planner import Planner
from corral.schema import did_you_mean

LOCK_FILE = "corral.lock"


def project_root(start: Path | None = None) -> Path:
    """The folder with deploy.py and catalog/, from ``start`` upward. Raises CorralError."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "deploy.py").is_file() and (folder / "catalog").is_dir():
            return folder
    raise CorralError(str(here), "not inside a Corral checkout", "cd to the folder with deploy.py")


def helper_package(root: Path) -> Path:
    """The folder with the sources of the host helper."""
    return root / "files" / "corral_host"


def read_catalog(root: Path, *, tolerant: bool = False) -> Catalog:
    """Read the catalog and check that every engine is of a known kind. Raises CorralError.

    + tolerant: see ``load_catalog``
    """
    catalog = load_catalog(root / "catalog", tolerant=tolerant)
    broken = {}
    for name, error in _unknown_kinds(catalog):
        if not tolerant:
            raise error
        broken[name] = error
    if not broken:
        return catalog
    return catalog.model_copy(
        update={
            "engines": {n: e for n, e in catalog.engines.items() if f"engine {n}" not in broken},
            "models": {n: m for n, m in catalog.models.items() if f"model {n}" not in broken},
            "broken": {**catalog.broken, **broken},
        }
    )


def _unknown_kinds(catalog: Catalog) -> Iterator[tuple[str, CorralError]]:
    """Pairs of ``engine NAME`` or ``model NAME`` and the mistake in its file."""
    for name, engine in catalog.engines.items():
        if engine.kind not in kinds():
            where = f"catalog/engines/{name}.toml"
            yield f"engine {name}", _unknown_kind(where, "kind", engine.kind)
    for name, model in catalog.models.items():
        for quant, entry in model.quants.items():
            if entry.engine is not None and entry.engine not in kinds():
                where, key = f"catalog/models/{name}.toml", f"quants.{quant}.engine"
                yield f"model {name}", _unknown_kind(where, key, entry.engine)


def _unknown_kind(where: str, key: str, kind: str) -> CorralError:
    what = f'{key}: there is no kind of engine "{kind}"{did_you_mean(kind, kinds())}'
    return CorralError(where, what, f"edit {where}: name one of {', '.join(kinds())}")


def load_planner(root: Path, *, tolerant: bool = False, brief: bool = False) -> Planner:
    """Read catalog and lock file. Raises CorralError.

    + tolerant: see ``load_catalog``; + brief: see ``HeaderStore``
    """
    return Planner(
        catalog=read_catalog(root, tolerant=tolerant),
        lock=read_lock(root / LOCK_FILE),
        requirements=RequirementsFiles(root),
        paths=HOST_PATHS,
        templates=root / "templates",
        headers=HeaderStore(default_headers_folder(), brief=brief),
    )
