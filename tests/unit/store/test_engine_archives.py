"""The archive store: whole or not there, proved on the way in and out."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.store.engine_archives import Archive, ArchiveStore

BYTES = b"a release, packed" * 100
KEY = "0c1e57098bba-cpu-25455e42"


def archive(content: bytes = BYTES, key: str = KEY) -> Archive:
    return Archive(
        engine="llama.cpp",
        key=key,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        manifest={"flags": ["--model"], "builder": "gpu-01"},
    )


def received(store: ArchiveStore, content: bytes = BYTES, key: str = KEY) -> Path:
    path = store.incoming("llama.cpp", key)
    path.write_bytes(content)
    return path


@pytest.fixture
def store(tmp_path: Path) -> ArchiveStore:
    found = ArchiveStore(tmp_path / "store")
    found.add(received(found), archive())
    return found


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_an_archive_is_found_by_its_key(store: ArchiveStore) -> None:
    found = store.find("llama.cpp", KEY)
    assert found == archive()
    assert store.sound(archive())
    assert store.path(archive()).read_bytes() == BYTES
    assert files(store.folder) == [f"{KEY}.json", f"{KEY}.tar.zst"]


def test_what_is_not_there_is_none(store: ArchiveStore) -> None:
    assert store.find("llama.cpp", KEY.replace("0", "1")) is None
    assert store.find("ik_llama.cpp", KEY) is None
    assert ArchiveStore(store.folder / "nowhere").all() == []


def test_bytes_that_changed_on_the_way_are_refused_and_removed(tmp_path: Path) -> None:
    store = ArchiveStore(tmp_path)
    flipped = BYTES[:7] + b"\x00" + BYTES[8:]
    with pytest.raises(CorralError, match="do not match its digest"):
        store.add(received(store, flipped), archive())
    assert files(tmp_path) == []


@pytest.mark.parametrize("size_bytes", [0, len(BYTES) - 1, len(BYTES) + 1])
def test_an_archive_of_another_size_is_not_there(store: ArchiveStore, size_bytes: int) -> None:
    store.path(archive()).write_bytes(bytes(size_bytes))
    assert store.find("llama.cpp", KEY) is None
    assert store.all() == []


def test_a_flipped_bit_is_unsound(store: ArchiveStore) -> None:
    store.path(archive()).write_bytes(BYTES[:-1] + b"?")
    assert not store.sound(archive())
    with pytest.raises(CorralError, match="its bytes in the store are damaged") as caught:
        store.export(archive(), store.folder / "out")
    assert "rm " in str(caught.value)


def test_a_killed_add_leaves_no_archive(tmp_path: Path) -> None:
    store = ArchiveStore(tmp_path)
    received(store).rename(store.path(archive()))
    assert store.find("llama.cpp", KEY) is None


def test_a_removed_archive_is_gone(store: ArchiveStore) -> None:
    store.remove(archive())
    assert files(store.folder) == []
    store.remove(archive())


def test_archives_go_to_another_store(store: ArchiveStore, tmp_path: Path) -> None:
    described = store.export(archive(), tmp_path / "stick")
    other = ArchiveStore(tmp_path / "other")
    assert other.import_from(described) == archive()
    assert other.all() == [archive()]
    assert other.path(archive()).read_bytes() == BYTES


def test_taking_half_or_nonsense_is_one_message(store: ArchiveStore, tmp_path: Path) -> None:
    described = store.export(archive(), tmp_path)
    packed = tmp_path / f"llama.cpp-{KEY}.tar.zst"
    packed.write_bytes(BYTES[:-1] + b"?")
    other = ArchiveStore(tmp_path / "other")
    with pytest.raises(CorralError, match="do not match its digest"):
        other.import_from(described)
    packed.unlink()
    with pytest.raises(CorralError, match="is missing"):
        other.import_from(described)
    described.write_text("{")
    with pytest.raises(CorralError, match="not the description of an archive"):
        other.import_from(described)
    assert files(tmp_path / "other") == []


def test_a_description_that_names_a_path_is_refused(store: ArchiveStore) -> None:
    described = store.path(archive()).with_name(f"{KEY}.json")
    described.write_text(described.read_text().replace('"llama.cpp"', '"../../etc"'))
    with pytest.raises(CorralError, match="not the description"):
        store.all()


def test_how_much_comes_out_is_what_its_manifest_says() -> None:
    said = {"flags": [], "size_bytes": 7}
    assert archive().unpacked_bytes is None
    assert archive().model_copy(update={"manifest": said}).unpacked_bytes == 7
    for odd in (0, -1, 2**40, "7"):
        with pytest.raises(ValueError, match="size_bytes"):
            Archive.model_validate(
                {**archive().model_dump(), "manifest": {**said, "size_bytes": odd}}
            )
