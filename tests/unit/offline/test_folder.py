"""Writing a bundle: whole files only, and what is in place is not made again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.offline.folder import BundleFolder
from corral.offline.manifest import DOCUMENT, WORK
from tests.unit.small_disks import small_disk

NAME = "apt/debian-12/a.deb"


def test_a_file_appears_whole_and_is_known_to_the_next_run(tmp_path: Path) -> None:
    with BundleFolder.opened(tmp_path / "disk") as folder:
        folder.partial(NAME).write_bytes(b"half")
        assert not (folder.path / NAME).exists()
        file = folder.finish(NAME)
    with BundleFolder.opened(tmp_path / "disk") as again:
        assert again.known(NAME) == file
        assert again.has(NAME, file.sha256)


def test_a_file_that_changed_meanwhile_is_not_known(tmp_path: Path) -> None:
    with BundleFolder.opened(tmp_path) as folder:
        folder.write(NAME, b"one")
        (tmp_path / NAME).write_bytes(b"two")
        os.utime(tmp_path / NAME, (1, 1))
        assert folder.known(NAME) is None


def test_a_journal_that_a_kill_cut_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    with BundleFolder.opened(tmp_path) as folder:
        folder.write(NAME, b"one")
        with (folder.work / "journal").open("ab") as journal:
            journal.write(b'\n{"file": {"name": "apt/x')
    with BundleFolder.opened(tmp_path) as again:
        assert again.known(NAME)
        again.write("apt/b", b"b")
    with BundleFolder.opened(tmp_path) as third:
        assert third.known("apt/b")


def test_other_bytes_than_wanted_are_removed(tmp_path: Path) -> None:
    with BundleFolder.opened(tmp_path) as folder:
        folder.partial(NAME).write_bytes(b"rot")
        with pytest.raises(CorralError, match="is wanted"):
            folder.finish(NAME, "0" * 64)
        assert not folder.partial(NAME).exists()
        assert not (tmp_path / NAME).exists()


def test_a_folder_with_other_things_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with (
        pytest.raises(CorralError, match="is not empty and no bundle: it has photos"),
        BundleFolder.opened(tmp_path),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_new_file_system_is_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    with BundleFolder.opened(tmp_path):
        assert (tmp_path / WORK).is_dir()


def test_two_do_not_write_one_bundle(tmp_path: Path) -> None:
    with (
        BundleFolder.opened(tmp_path),
        pytest.raises(CorralError, match="being written by another"),
        BundleFolder.opened(tmp_path),
    ):
        pass


def test_files_of_an_earlier_run_that_are_not_wanted_go(tmp_path: Path) -> None:
    with BundleFolder.opened(tmp_path) as folder:
        folder.write("apt/old/a", b"a")
        folder.write("apt/new/b", b"b")
        folder.keep_only({"apt/new/b"})
        assert not (tmp_path / "apt/old").exists()
        assert (tmp_path / "apt/new/b").exists()


def test_what_is_changed_is_no_bundle_until_it_is_described(tmp_path: Path) -> None:
    with BundleFolder.opened(tmp_path) as folder:
        (tmp_path / DOCUMENT).write_text("{}")
        folder.begin()
        assert not (tmp_path / DOCUMENT).exists()


def test_a_disk_without_room_is_refused_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=2 * 1024**3)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with BundleFolder.opened(tmp_path) as folder:
        folder.refuse_small(1024**3)
        with pytest.raises(CorralError, match=r"2\.0 GiB free, and 3\.0 GiB are to come"):
            folder.refuse_small(3 * 1024**3)
        folder.partial(NAME).write_bytes(b"")
        os.truncate(folder.partial(NAME), 2 * 1024**3)
        folder.refuse_small(3 * 1024**3)


@pytest.mark.slow
def test_a_full_disk_is_one_message_and_leaves_no_half_file(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 4 * 1024**2)
    with small_disk(tmp_path / "disk") as disk, BundleFolder.opened(disk) as folder:
        with pytest.raises(CorralError, match="No space left") as error:
            folder.copy(NAME, source)
        assert "free disk space there" in error.value.next_step
        assert not (disk / NAME).exists()
