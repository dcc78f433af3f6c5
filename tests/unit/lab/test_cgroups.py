"""Control groups of lab hosts: they come and go while they are listed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import cgroups


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host's group with two processes in it and one in a group below."""
    folder = tmp_path / "lab-1"
    (folder / "service").mkdir(parents=True)
    (folder / "cgroup.procs").write_text("11\n12\n")
    (folder / "service/cgroup.procs").write_text("13\n")
    monkeypatch.setattr(cgroups, "_mounts", lambda: {"": (Path("/"), tmp_path)})
    return folder


def test_members_are_those_of_the_group_and_below(group: Path) -> None:
    assert cgroups.members(group.name) == {11, 12, 13}
    assert cgroups.members("lab-*") == {11, 12, 13}
    assert cgroups.members("lab-2") == set()


def test_a_group_that_goes_away_while_it_is_listed_has_no_members(
    group: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = os.scandir

    def scandir(folder: str | int) -> Iterator[os.DirEntry[str]]:
        if str(folder) == str(group / "service"):
            shutil.rmtree(group / "service")
        return listed(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert cgroups.members("lab-1") == {11, 12}


def test_a_group_that_goes_away_while_it_is_removed_is_removed(
    group: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As control groups are: their files go with them, so a folder is removed with rmdir."""
    for file in list(group.rglob("cgroup.procs")):
        file.unlink()
    removed = Path.rmdir

    def rmdir(folder: Path) -> None:
        if folder.name == "service":
            removed(folder)
        removed(folder)

    monkeypatch.setattr(Path, "rmdir", rmdir)
    cgroups.remove("lab-1")
    assert not group.exists()
