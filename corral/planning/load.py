"""Read what a project plans from: its catalog, its lock file and its requirements files."""

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
from corral.product import product_of
from corral.project import LOCK_FILE, templates
from corral.schema import did_you_mean


def requirements_files(root: Path) -> RequirementsFiles:
    """The requirements files of a project."""
    return RequirementsFiles(root, product=product_of(root))


def read_catalog(root: Path, *, tolerant: bool = False) -> Catalog:
    """Read the catalog and check that every engine is of a known kind. Raises CorralError.

    The product's catalog lies under that of a fleet's own folder.
    + tolerant: see ``load_catalog``
    """
    product = product_of(root)
    under = product / "catalog" if product != root else None
    catalog = load_catalog(root / "catalog", under=under, tolerant=tolerant)
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
        requirements=requirements_files(root),
        paths=HOST_PATHS,
        templates=templates(root),
        headers=HeaderStore(default_headers_folder(), brief=brief),
    )
