"""Wheels from the package index of this machine, kept in a cache and checked whenever used.

pip checks what it downloads against locked hashes; what is kept has the digests of that day beside
it, so that a damaged file is downloaded again.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from corral.lock.requirements import RequirementsFiles
from lab import locks
from lab.commands import run
from lab.layout import Layout, this_lab
from lab.wheel_index import sha256_of

RECORD = "digests.json"
_SECONDS = 1800


def kept(folder: Path, fill: Callable[[Path], None]) -> Path:
    """A folder of wheels: as it was filled, or filled anew where a file of it differs."""
    with locks.wait_for_others(folder.with_name(f"{folder.name}.lock"), f"filling {folder}"):
        if not is_whole(folder):
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            fill(partial)
            digests = {path.name: sha256_of(path) for path in sorted(partial.glob("*.whl"))}
            (partial / RECORD).write_text(json.dumps(digests, indent=2) + "\n")
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
    return folder


def is_whole(folder: Path) -> bool:
    """Whether every wheel of a folder has the digest that it was kept with."""
    record = folder / RECORD
    if not record.is_file():
        return False
    found = {path.name: sha256_of(path) for path in folder.glob("*.whl")}
    return bool(found) and found == json.loads(record.read_text())


def download(requirements: str, folder: Path) -> None:
    """Download what a locked file names, for Python 3.11. Raises CorralError."""
    wanted = folder / "requirements.txt"
    wanted.write_text(requirements)
    run(
        [
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input",
            "--disable-pip-version-check", "--only-binary", ":all:", "--require-hashes",
            "--python-version", "3.11", *find_links(folder),
            "--dest", str(folder), "--requirement", str(wanted),
        ],
        where="wheels from this machine's package index",
        timeout_seconds=_SECONDS,
    )  # fmt: skip


def find_links(folder: Path) -> list[str]:
    """Arguments of pip and uv for a folder of wheels, and those that pip is configured for."""
    own = os.environ.get("PIP_FIND_LINKS", "").split()
    return [part for one in (str(folder), *own) for part in ("--find-links", one)]


def uv_wheel(layout: Layout | None = None) -> Path:
    """The wheel of the uv that Corral pins, which hosts install first."""
    layout = layout or this_lab()
    pinned = RequirementsFiles(layout.checkout).installer()
    version = pinned.split("==")[1].split()[0]
    folder = kept(layout.cache / "wheels" / f"uv-{version}", lambda f: download(pinned + "\n", f))
    (wheel,) = folder.glob("uv-*.whl")
    return wheel
