"""Small bundles for tests: a few files, with a manifest that fits."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from corral.offline.manifest import DOCUMENT, Bundle, BundleFile

REVISION = "ab" * 20
WEIGHTS = f"weights/acme/Tiny-GGUF/{REVISION}/Q8_0/tiny.gguf"
DEB = "apt/debian-12/aria2_1.36-1_amd64.deb"
WHEEL = "wheels/Demo_Pkg-1.0-py3-none-any.whl"
FILES = {
    WEIGHTS: b"weights " * 100,
    DEB: b"a package",
    "apt/debian-12/Packages": b"Package: aria2\n",
    "apt/debian-12/InRelease": b"signed\n",
    WHEEL: b"a wheel",
}


def described(name: str, content: bytes) -> BundleFile:
    """A file as a manifest has it."""
    digest = hashlib.sha256(content).hexdigest()
    return BundleFile(name=name, size_bytes=len(content), sha256=digest)


def bundle(files: dict[str, bytes] | None = None, **fields: Any) -> Bundle:
    """A manifest."""
    found = FILES if files is None else files
    values: dict[str, Any] = {
        "at": "2026-11-30T04:00:00Z",
        "by": "op@desk",
        "hosts": ("node-1",),
        "platforms": ("debian-12",),
        "files": tuple(described(name, content) for name, content in found.items()),
        "apt_key": "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END-----\n",
    }
    return Bundle(**{**values, **fields})


def write(folder: Path, files: dict[str, bytes] | None = None, **fields: Any) -> Bundle:
    """Write a bundle."""
    found = FILES if files is None else files
    for name, content in found.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    made = bundle(found, **fields)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / DOCUMENT).write_text(made.model_dump_json(indent=1) + "\n")
    return made


def quiet(_: str) -> None:
    """A report that nobody reads."""
