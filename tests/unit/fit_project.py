"""A checkout with a lock of models that a hub on loopback serves: real headers before holes."""

from __future__ import annotations

import contextlib
import io
import lzma
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from corral.catalog.entries import load_catalog
from corral.fit.answer import Answer
from corral.lock.lock_file import Lock, LockedFile, LockedModel, write_lock
from lab import hub
from lab.hub_store import Store
from lab.model_headers import GLM_4_7_FLASH, write_header
from tests.samples import EXAMPLES
from tests.unit.cli.test_cli import Corral, Said
from tests.unit.fit_samples import AIR, DENSE, SHARED_DATA
from tests.unit.hub_layouts import declared_digests
from tests.unit.running_hub import RunningHub

SHIPPED = load_catalog(EXAMPLES / "catalog")
_REVISION = "ab" * 20
_FLASH = ("glm-4.7-flash", "UD-Q4_K_XL")
# Model and quant -> where its repository has it, the real header, the size of the whole file.
_REAL = {
    ("glm-4.5-air", "UD-Q4_K_XL"): ("UD-Q4_K_XL/GLM-4.5-Air-UD-Q4_K_XL.gguf", AIR, 82572049696),
    ("glm-z1-32b-0414", "IQ4_XS"): ("THUDM_GLM-Z1-32B-0414-IQ4_XS.gguf", DENSE, 17593510848),
}


@dataclass(frozen=True)
class ModelHub:
    """A hub, a lock of what it has, and the folder where its headers are kept."""

    running: RunningHub
    lock: Lock
    kept: Path


@contextlib.contextmanager
def serving_models(folder: Path) -> Iterator[ModelHub]:
    """Three models: two with real headers, and one that is made."""
    root, log = folder / "hub", io.StringIO()
    _write_hub(root)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("lab.hub_store._digests", declared_digests)
        with hub.running(root, log=log) as url:
            yield ModelHub(RunningHub(root, url, log), _lock_of(root), folder / "kept")


def _write_hub(root: Path) -> None:
    for (name, _), (path, header, size_bytes) in _REAL.items():
        file = root / "repos" / SHIPPED.models[name].repo / "main" / path
        file.parent.mkdir(parents=True)
        packed = SHARED_DATA / f"{header}.gguf-header.xz"
        with file.open("wb") as out:
            out.write(lzma.decompress(packed.read_bytes()))
            out.truncate(size_bytes)
    entry = SHIPPED.models[_FLASH[0]]
    file = root / "repos" / entry.repo / "main" / entry.quants[_FLASH[1]].files
    file.parent.mkdir(parents=True)
    write_header(file, GLM_4_7_FLASH, vocabulary=False)


def _lock_of(root: Path) -> Lock:
    """What `corral lock` would write for the hub below ``root``."""
    store, models = Store(root), {}
    for name, quant in [*_REAL, _FLASH]:
        snapshot = store.snapshot(SHIPPED.models[name].repo, "main")
        files = tuple(
            LockedFile(path=f.path, size_bytes=f.size_bytes, sha256=f.sha256)
            for f in snapshot.files
        )
        models[name] = locked(name, quant, *files, revision=snapshot.commit)
    return Lock(models=models)


def locked(name: str, quant: str, *files: LockedFile, revision: str = _REVISION) -> LockedModel:
    """An entry that agrees with the catalog."""
    entry = SHIPPED.models[name]
    return LockedModel(
        repo=entry.repo,
        requested=entry.revision,
        revision=revision,
        patterns={quant: entry.quants[quant].files},
        quants={quant: files},
    )


@dataclass(frozen=True)
class Fit:
    """`corral fit` in a checkout of its own, which has no inventory."""

    corral: Corral
    hub_url: str

    def __call__(self, *words: str) -> Said:
        return self.corral("fit", *words, "--hub", self.hub_url)

    def json(self, *words: str) -> Answer:
        """What a program gets."""
        return Answer.model_validate_json(self(*words, "--json").out)

    @property
    def root(self) -> Path:
        return self.corral.root

    def inventory(self, text: str) -> None:
        (self.root / "inventories" / "site.py").write_text(text)

    def add(self, path: str, text: str) -> None:
        """One more file in the catalog."""
        folder, name = path.split("/")
        mine = self.root / "catalog" / folder
        if mine.is_symlink():
            mine.unlink()
            mine.mkdir()
            for file in (EXAMPLES / "catalog" / folder).iterdir():
                (mine / file.name).symlink_to(file)
        (mine / name).write_text(text)


def fit_in(
    folder: Path,
    lock: Lock,
    hub_url: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Fit:
    """The catalog as it is, and another lock."""
    (folder / "catalog").mkdir()
    for part in (EXAMPLES / "catalog").iterdir():
        (folder / "catalog" / part.name).symlink_to(part)
    (folder / "deploy.py").touch()
    (folder / "inventories").mkdir()
    write_lock(folder / "corral.lock", lock)
    return Fit(Corral(folder, capsys, monkeypatch), hub_url)
