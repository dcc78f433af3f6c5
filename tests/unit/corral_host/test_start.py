"""The installed helper runs from files that Python has compiled, wherever that can be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from corral.paths import HOST_PATHS
from corral.remote.helper_archive import BOOTSTRAP, UNPACKED, archive, encoded
from tests.samples import ROOT
from tests.unit.helper_modules import helper_module

start = helper_module("start")
PACKAGE = ROOT / "files" / "corral_host"
LAST_LINES = "import sys; print(sys.modules['corral_host'].__file__, file=sys.stderr)"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An archive of the helper, and a folder for what is unpacked."""
    monkeypatch.setattr(start, "FOLDER", str(tmp_path / "run"))
    path = tmp_path / "corral_host.pyz"
    path.write_bytes(archive(PACKAGE))
    return path


def made(path: Path) -> Path:
    folder = start.unpacked(str(path))
    assert folder is not None
    return Path(folder)


def test_both_sides_name_the_same_paths() -> None:
    assert HOST_PATHS.helper == start.INSTALLED
    assert start.FOLDER == UNPACKED


def test_it_is_unpacked_once_and_closed_to_others(installed: Path) -> None:
    folder = made(installed)
    assert (folder / "corral_host" / "jobs.py").read_bytes() == (PACKAGE / "jobs.py").read_bytes()
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    (folder / "mark").touch()
    assert made(installed) == folder
    assert (folder / "mark").exists()
    assert list(folder.parent.iterdir()) == [folder], "nothing half unpacked"


def test_another_helper_has_another_folder_and_a_few_old_ones_stay(installed: Path) -> None:
    folders = [made(installed)]
    for number in range(1, 7):
        os.utime(folders[-1], (number, number))
        # What follows the end of an archive is no part of it.
        installed.write_bytes(archive(PACKAGE) + bytes(number))
        folders.append(made(installed))
    assert len(set(folders)) == 7
    assert [folder for folder in folders if folder.exists()] == folders[-start.KEPT :]


@pytest.mark.parametrize("fault", ["no archive", "damaged", "no room"])
def test_where_it_cannot_be_unpacked_the_archive_runs_itself(
    fault: str, installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    if fault == "no archive":
        installed.unlink()
    elif fault == "damaged":
        installed.write_bytes(archive(PACKAGE)[:-1000])
    else:
        monkeypatch.setattr("zipfile.ZipFile.extractall", full)
    assert start.unpacked(str(installed)) is None
    left = tmp_path / "run"
    assert not left.exists() or not list(left.iterdir())


@pytest.mark.parametrize("place", [2000, 3000, -1])
def test_a_flipped_bit_is_noticed(place: int, installed: Path, tmp_path: Path) -> None:
    content = bytearray(installed.read_bytes())
    # In the texts of modules, and in the record at the archive's end.
    content[place if place > 0 else content.rindex(b"PK\x05\x06")] ^= 1
    installed.write_bytes(content)
    assert start.unpacked(str(installed)) is None
    assert not list((tmp_path / "run").iterdir())


def travelled(folder: Path) -> str:
    """Where the helper that travels is imported from, with unpacked ones in ``folder``."""
    program = BOOTSTRAP.replace(UNPACKED, str(folder)).replace("sys.exit(", f"{LAST_LINES};(")
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, "nothing"], input=f"{encoded(PACKAGE)}\n",
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stderr.splitlines()[0]


def test_the_helper_that_travels_uses_the_unpacked_one_if_it_is_the_same(installed: Path) -> None:
    unpacked = made(installed).parent
    assert travelled(unpacked).startswith(str(unpacked))
    assert travelled(unpacked.parent).startswith("/proc/self/fd/")
