"""Prove a bundle: each file against the manifest, the manifest against its signature."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from corral.errors import CorralError
from corral.files import make_folder, read_small, write_atomic
from corral.offline.folder import digest_of
from corral.offline.manifest import (
    DOCUMENT,
    KINDS,
    Bundle,
    BundleFile,
    manifest_sha256,
    parse_bundle,
    read_manifest,
)
from corral.offline.signature import require_signature
from corral.paths import default_bundles_folder
from corral.schema import Frozen

Report = Callable[[str], None]
_MOST_SHOWN = 5
_MOST_BYTES = 64 * 1024**2
_STEP_BYTES = 8 * 1024**3
_AGAIN = "copy these files again from where the bundle was written, then `corral bundle verify`"


class Stamp(Frozen):
    """A file as it was when its digest was proved."""

    size_bytes: int
    mtime_ns: int
    inode: int


class Proved(Frozen):
    """Files of a bundle whose digests were proved here, by name."""

    manifest_sha256: str
    stamps: dict[str, Stamp]


class Opened:
    """A bundle whose manifest is read and, with a key, proved by its signature."""

    def __init__(self, folder: Path, *, public_key: Path | None = None) -> None:
        """Raises CorralError."""
        if public_key:
            require_signature(folder, public_key)
        data = read_manifest(folder)
        self.folder = folder
        self.bundle: Bundle = parse_bundle(data, where=str(folder / DOCUMENT))
        self.manifest_sha256 = manifest_sha256(data)

    def path(self, name: str) -> Path:
        """Where a file of the manifest is; its name was checked with the manifest."""
        return self.folder / name

    def stamp(self, name: str) -> Stamp | None:
        """A file as it is now; None for one that is missing, or that is no regular file here."""
        path = self.path(name)
        inside = self.folder.resolve()
        if not path.is_file() or inside not in path.resolve().parents:
            return None
        found = path.stat()
        return Stamp(size_bytes=found.st_size, mtime_ns=found.st_mtime_ns, inode=found.st_ino)


def prove(opened: Opened, report: Report, *, again: bool = True) -> Proved:
    """Read every file of a bundle. Raises CorralError that names those that differ.

    + again: also those that were proved on this controller before and have not changed since
    """
    before = {} if again else _remembered(opened)
    stamps: dict[str, Stamp] = {}
    faults: list[str] = []
    read, whole = 0, opened.bundle.size_bytes
    for file in opened.bundle.files:
        stamp = opened.stamp(file.name)
        is_known = stamp is not None and before.get(file.name) == stamp
        if not is_known and (fault := _fault(opened, file, stamp)):
            faults.append(f"{file.name} {fault}")
            continue
        if stamp:
            stamps[file.name] = stamp
        if (read + file.size_bytes) // _STEP_BYTES > read // _STEP_BYTES:
            done = (read + file.size_bytes) / 1024**3
            report(f"{done:,.0f} of {whole / 1024**3:,.0f} GiB proved")
        read += file.size_bytes
    if faults:
        raise CorralError(str(opened.folder), _sentence(faults), _AGAIN)
    proved = Proved(manifest_sha256=opened.manifest_sha256, stamps=stamps)
    _remember(proved)
    return proved


def surplus(opened: Opened) -> list[str]:
    """Files in the folders of a bundle that its manifest does not name; nothing serves them."""
    known = {file.name for file in opened.bundle.files}
    found = []
    for kind in KINDS:
        for path in sorted((opened.folder / kind).rglob("*")):
            name = path.relative_to(opened.folder).as_posix()
            if not path.is_dir() and name not in known:
                found.append(name)
    return found


def refuse_other_base(opened: Sequence[Opened]) -> None:
    """Raises CorralError for a bundle that adds to one which is not among those before it."""
    known: set[str] = set()
    for one in opened:
        since = one.bundle.since
        if since and since.manifest_sha256 not in known and known:
            what = f"adds to a bundle of {since.at}, which is not the one that is named before it"
            raise CorralError(str(one.folder), what, "name the bundle that it was made --since")
        known.add(one.manifest_sha256)


def _fault(opened: Opened, file: BundleFile, stamp: Stamp | None) -> str:
    if stamp is None:
        return "is missing"
    if stamp.size_bytes != file.size_bytes:
        return f"has {stamp.size_bytes} bytes instead of {file.size_bytes}"
    try:
        found = digest_of(opened.path(file.name))
    except CorralError as error:
        return error.what
    if found.sha256 != file.sha256:
        return f"has sha256 {found.sha256[:16]}... instead of {file.sha256[:16]}..."
    return ""


def _sentence(faults: Iterable[str]) -> str:
    listed = list(faults)
    shown = "; ".join(listed[:_MOST_SHOWN])
    more = len(listed) - _MOST_SHOWN
    return f"{shown}; and {more} more files" if more > 0 else shown


def _path(manifest: str) -> Path:
    return default_bundles_folder() / f"{manifest}.json"


def _remembered(opened: Opened) -> dict[str, Stamp]:
    path = _path(opened.manifest_sha256)
    if not path.is_file():
        return {}
    data = read_small(path, most_bytes=_MOST_BYTES, next_step=f"rm {path}")
    try:
        return dict(Proved.model_validate_json(data).stamps)
    except ValidationError:
        # Of another version: everything is read again.
        return {}


def _remember(proved: Proved) -> None:
    path, step = _path(proved.manifest_sha256), "free disk space there"
    make_folder(path.parent, next_step=step)
    write_atomic(path, proved.model_dump_json() + "\n", next_step=step)
