"""What a bundle says of itself: each file with its size and digest, in ``bundle.json``.

The first part of a file's name says what it is, so that nothing else has to:
    lock/corral.lock                       lock/corral.lock.d/ENGINE.txt
    weights/ORGANISATION/NAME/REVISION/PATH
    headers/SHA256.SUFFIX                  as in the cache of headers
    archives/ENGINE/KEY.tar.zst            archives/ENGINE/KEY.json
    images/SHA256/FILE                     wheels/FILE
    sources/ENGINE/COMMIT.pack             all objects of a commit, without its history
    apt/PLATFORM/FILE                      a package repository without suites
    product/FILE                           Corral and its Python environment
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from corral_shared.text import printable
from pydantic import AfterValidator, Field, model_validator

from corral.errors import CorralError
from corral.files import read_small
from corral.lock.lock_file import MOST_FILE_BYTES
from corral.names import MOMENT, HubPath
from corral.schema import Frozen, parse_json

DOCUMENT = "bundle.json"
SIGNATURE = "bundle.json.minisig"
# Files that are being written; no part of the bundle.
WORK = ".work"
KINDS = (
    "lock", "weights", "headers", "archives", "sources", "images", "wheels", "apt", "product",
)  # fmt: skip
# A hundred thousand files.
MOST_DOCUMENT_BYTES = 64 * 1024**2
_AGAIN = "copy the bundle again, or write it again with `corral bundle`"


def _file_name(name: str) -> str:
    parts = name.split("/")
    if parts[0] not in KINDS or len(parts) < 2:
        raise ValueError(f"{printable(name)!r} is not in one of the folders {', '.join(KINDS)}")
    if any(part.startswith(".") for part in parts):
        raise ValueError(f"{printable(name)!r} has a part that begins with a dot")
    return name


BundleName = Annotated[HubPath, AfterValidator(_file_name)]
"""The path of a file in a bundle: relative, below one of ``KINDS``, nothing hidden."""

_SHA256 = r"^[0-9a-f]{64}$"


class BundleFile(Frozen):
    """A file of a bundle."""

    name: BundleName
    size_bytes: int = Field(ge=0, lt=MOST_FILE_BYTES)
    sha256: str = Field(pattern=_SHA256)


class Earlier(Frozen):
    """The bundle that another one adds to."""

    at: str = Field(pattern=MOMENT)
    manifest_sha256: str = Field(pattern=_SHA256)


class Product(Frozen):
    """Corral's own environment: ``python``: its version and machine, such as ``3.11 x86_64``."""

    version: str
    python: str


class Bundle(Frozen):
    """The manifest.

    + hosts, platforms: those that it was made for
    + files: in this folder; + elsewhere: needed as well, and in the bundle that this one adds to
    + apt_key: the public key that the package repositories are signed with, in armor
    + left_out: what hosts may need and the bundle has not, a sentence each
    """

    version: Literal[1] = 1
    at: str = Field(pattern=MOMENT)
    by: str
    hosts: tuple[str, ...]
    platforms: tuple[str, ...]
    product: Product | None = None
    since: Earlier | None = None
    files: tuple[BundleFile, ...]
    elsewhere: tuple[BundleFile, ...] = ()
    apt_key: str = ""
    left_out: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _names_do_not_collide(self) -> Bundle:
        names = [file.name for file in (*self.files, *self.elsewhere)]
        known = set(names)
        if len(known) < len(names):
            twin = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{twin!r} is named twice")
        for name in names:
            parts = name.split("/")
            if any("/".join(parts[:count]) in known for count in range(1, len(parts))):
                raise ValueError(f"{name!r} is below another file")
        return self

    @property
    def size_bytes(self) -> int:
        """Of the files in this folder."""
        return sum(file.size_bytes for file in self.files)

    @property
    def needed(self) -> dict[str, BundleFile]:
        """Every file that its hosts need, here or in the earlier bundle, by name."""
        return {file.name: file for file in (*self.files, *self.elsewhere)}

    def of(self, kind: str) -> list[BundleFile]:
        """Files in this folder of one kind."""
        return [file for file in self.files if file.name.startswith(f"{kind}/")]


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle's manifest. Raises CorralError for one that is missing, damaged or unsafe."""
    return parse_bundle(read_manifest(folder), where=str(folder / DOCUMENT))


def read_manifest(folder: Path) -> bytes:
    """The bytes of a bundle's manifest. Raises CorralError."""
    path = folder / DOCUMENT
    if not path.is_file():
        begun = (folder / WORK).is_dir()
        what = "is not complete: writing it was interrupted" if begun else "is no bundle"
        again = "run the same `corral bundle -o FOLDER INVENTORY` again, which goes on"
        step = again if begun else f"name a folder with {DOCUMENT}"
        raise CorralError(str(folder), what, step)
    return read_small(path, most_bytes=MOST_DOCUMENT_BYTES, next_step=_AGAIN)


def parse_bundle(data: bytes, *, where: str) -> Bundle:
    """Raises CorralError."""
    return parse_json(Bundle, data, where=where, next_step=_AGAIN)


def manifest_sha256(data: bytes) -> str:
    """By which another bundle names this one."""
    return hashlib.sha256(data).hexdigest()
