"""A manifest from outside: names that lead elsewhere are refused before any file is opened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.offline.manifest import DOCUMENT, WORK, read_bundle
from tests.unit.offline import made


def changed(folder: Path, **keys: object) -> None:
    document = json.loads((folder / DOCUMENT).read_text())
    (folder / DOCUMENT).write_text(json.dumps({**document, **keys}))


def renamed(folder: Path, *names: str) -> None:
    files = [{"name": name, "size_bytes": 1, "sha256": "0" * 64} for name in names]
    changed(folder, files=files)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made.write(tmp_path)
    return tmp_path


def test_a_manifest_is_read_as_it_was_written(folder: Path) -> None:
    assert read_bundle(folder) == made.bundle()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("weights/../../etc/passwd", "a part that is .."),
        ("/etc/passwd", "is not relative"),
        ("etc/passwd", "is not in one of the folders"),
        ("weights", "is not in one of the folders"),
        ("apt/.ssh/id", "begins with a dot"),
        ("apt//x", "a part that is empty"),
        ("apt/a\nb", "not printable"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(folder: Path, name: str, why: str) -> None:
    renamed(folder, name)
    with pytest.raises(CorralError, match=why) as error:
        read_bundle(folder)
    assert error.value.where == str(folder / DOCUMENT)
    assert "corral bundle" in error.value.next_step


@pytest.mark.parametrize(
    ("names", "why"),
    [(("apt/a", "apt/a"), "named twice"), (("apt/a", "apt/a/b"), "below another file")],
)
def test_names_that_collide_are_refused(folder: Path, names: tuple[str, ...], why: str) -> None:
    renamed(folder, *names)
    with pytest.raises(CorralError, match=why):
        read_bundle(folder)


def test_a_key_that_nobody_knows_is_refused(folder: Path) -> None:
    changed(folder, scripts=["rm -rf /"])
    with pytest.raises(CorralError, match='unknown key "scripts"'):
        read_bundle(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00" * 10, "null"])
def test_a_damaged_manifest_is_one_message(folder: Path, text: str) -> None:
    (folder / DOCUMENT).write_text(text)
    with pytest.raises(CorralError, match=DOCUMENT):
        read_bundle(folder)


def test_a_folder_without_a_manifest_says_whether_one_was_begun(tmp_path: Path) -> None:
    with pytest.raises(CorralError, match="is no bundle"):
        read_bundle(tmp_path)
    (tmp_path / WORK).mkdir()
    with pytest.raises(CorralError, match="writing it was interrupted"):
        read_bundle(tmp_path)
