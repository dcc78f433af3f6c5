"""Labs that come and go at once share a folder, which the last one removes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lab import lifecycle, locks


def test_a_lock_is_held_although_another_lab_removes_its_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, opened = tmp_path / "labs" / "one.lock", os.open
    removed: list[Path] = []

    def removed_just_before(name: Path, *rest: Any) -> int:
        if not removed:
            removed.append(path.parent)
            path.parent.rmdir()
        return opened(name, *rest)

    monkeypatch.setattr(os, "open", removed_just_before)
    with locks.wait_for_others(path, "a test"):
        assert removed
        assert path.read_text() == f"a test, process {os.getpid()}"
    assert not path.exists()


@pytest.mark.parametrize("left", [None, "one.lock"])
def test_a_folder_of_labs_goes_with_its_last(tmp_path: Path, left: str | None) -> None:
    folder = tmp_path / "labs"
    folder.mkdir()
    if left:
        (folder / left).touch()
    for _ in range(2):  # two labs that go at once
        lifecycle.remove_if_empty(folder)
    assert folder.exists() is bool(left)
