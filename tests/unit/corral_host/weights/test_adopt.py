"""Bytes that are on the host already: linked by their digest, adopted from any layout."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit.helper_modules import helper_module
from tests.unit.small_disks import small_disk

adopting, fetching, roots = (
    helper_module(f"weights.{name}") for name in ("adopt", "fetch", "models_root")
)
receipts = helper_module("weights.receipts")

BYTES = b"weights" * 1000
OTHER = b"WEIGHTS" * 1000


class Weights:
    """A host whose hub has everything and notes what is asked of it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = root / "data"
        self.folder.mkdir()
        self.paths = {"state": str(root / "state"), "models_folder": str(self.folder)}
        self.asked: list[str] = []
        self.body = BYTES
        monkeypatch.setattr(fetching, "ask_hub", lambda one: self.asked.append(one["path"]))
        monkeypatch.setattr(fetching, "download", lambda _, staged: staged.write_bytes(self.body))
        monkeypatch.setattr(roots, "FSTAB", root / "fstab")

    def shard(self, revision: str = "new", name: str = "x.gguf", body: bytes = BYTES) -> Any:
        return {
            "url": f"http://hub.example.com/{name}", "revision": revision,
            "path": f"{self.folder}/a/b/{revision}/{name}", "size_bytes": len(body),
            "sha256": hashlib.sha256(body).hexdigest(),
        }  # fmt: skip

    def fetch(self, *shards: Any) -> None:
        self.asked.clear()
        fetching.fetch({"shards": list(shards), "paths": self.paths})
        assert all(receipts.shard_is_proved(one) for one in shards)
        assert list((self.folder / ".staging").glob("*")) == []


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    return Weights(tmp_path, monkeypatch)


def test_the_bytes_of_another_revision_are_linked(host: Weights) -> None:
    old, new = host.shard("old"), host.shard("new", "renamed.gguf")
    host.fetch(old)
    assert host.asked == [old["path"]]
    host.fetch(new)
    assert host.asked == []
    assert Path(new["path"]).samefile(old["path"])


def test_the_same_bytes_under_two_names_are_fetched_once(host: Weights) -> None:
    one, other = host.shard("old"), host.shard("new", "renamed.gguf")
    host.fetch(one, other)
    assert host.asked == [one["path"]]
    assert Path(other["path"]).samefile(one["path"])


def test_a_folder_that_the_inventory_changed_is_filled_from_the_one_before(
    host: Weights, tmp_path: Path
) -> None:
    paths = {"state": host.paths["state"]}
    before = {**host.shard(), "path": f"{tmp_path}/state/models/a/b/new/x.gguf"}
    fetching.fetch({"shards": [before], "paths": paths})
    host.fetch(host.shard())
    assert host.asked == []
    assert Path(host.shard()["path"]).samefile(before["path"])


def test_a_broken_file_lends_nothing(host: Weights) -> None:
    old, new = host.shard("old"), host.shard("new")
    host.fetch(old)
    Path(old["path"]).write_bytes(OTHER)
    host.fetch(new)
    assert host.asked == [new["path"]]


@pytest.mark.parametrize("name", ["GLM-4.7-Flash-UD-Q4_K_XL.gguf", "deep/er/any name.bin"])
def test_a_flat_file_is_adopted_where_its_bytes_match(host: Weights, name: str) -> None:
    found = host.folder / name
    found.parent.mkdir(parents=True, exist_ok=True)
    found.write_bytes(BYTES)
    found.chmod(0o600)
    host.fetch(host.shard())
    assert host.asked == []
    assert found.samefile(host.shard()["path"])
    # Servers are users of their own.
    assert found.stat().st_mode & 0o004


def test_a_file_that_is_in_its_place_without_a_receipt_only_gets_one(host: Weights) -> None:
    place = Path(host.shard()["path"])
    place.parent.mkdir(parents=True)
    place.write_bytes(BYTES)
    before = place.stat().st_ino
    host.fetch(host.shard())
    assert host.asked == []
    assert place.stat().st_ino == before


def test_a_link_of_a_cache_is_followed(host: Weights, tmp_path: Path) -> None:
    blob = tmp_path / "blobs" / "abc"
    blob.parent.mkdir()
    blob.write_bytes(BYTES)
    (host.folder / "snapshot.gguf").symlink_to(blob)
    (host.folder / "nothing.gguf").symlink_to(tmp_path / "nothing")
    host.fetch(host.shard())
    assert host.asked == []
    assert not Path(host.shard()["path"]).is_symlink()


def test_other_bytes_of_the_same_length_are_left_alone_and_the_hub_is_asked(
    host: Weights,
) -> None:
    found = host.folder / "mine.gguf"
    found.write_bytes(OTHER)
    host.fetch(host.shard())
    assert len(host.asked) == 1
    assert found.read_bytes() == OTHER


def test_what_has_another_length_is_not_read(
    host: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    (host.folder / "large.gguf").write_bytes(BYTES + b"x")
    monkeypatch.setattr(adopting, "hashed", None)
    host.fetch(host.shard())
    assert len(host.asked) == 1


def test_what_arrived_of_a_download_is_not_needed_any_more(host: Weights) -> None:
    staged = receipts.staging_path(host.shard(), host.paths)
    staged.parent.mkdir()
    staged.write_bytes(b"some")
    (host.folder / "x.gguf").write_bytes(BYTES)
    host.fetch(host.shard())
    assert host.asked == []


def test_a_file_that_changes_after_it_was_hashed_is_not_taken(
    host: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = host.folder / "x.gguf"
    found.write_bytes(BYTES)

    def link(source: Path, staged: Path) -> None:
        found.unlink()
        found.write_bytes(OTHER)
        original(source, staged)

    original = os.link
    monkeypatch.setattr(adopting.os, "link", link)
    host.fetch(host.shard())
    assert len(host.asked) == 1
    assert Path(host.shard()["path"]).read_bytes() == BYTES


@pytest.mark.parametrize("rotten", [False, True])
def test_across_file_systems_bytes_are_copied_and_proved(
    host: Weights, monkeypatch: pytest.MonkeyPatch, rotten: bool
) -> None:
    found = host.folder / "x.gguf"
    found.write_bytes(BYTES)

    def refused(*_: object) -> None:
        if rotten:
            found.write_bytes(OTHER)
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(adopting.os, "link", refused)
    host.fetch(host.shard())
    assert len(host.asked) == int(rotten)
    assert not found.samefile(host.shard()["path"])


def test_a_disk_that_is_full_keeps_what_has_arrived(
    host: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = b"w" * 100 * 1024
    with small_disk(tmp_path / "small") as small:
        host.folder = small
        host.paths["models_folder"] = str(small)
        shard = host.shard(body=body)
        outside = tmp_path / "outside.gguf"
        outside.write_bytes(body)
        (small / "x.gguf").symlink_to(outside)
        staged = receipts.staging_path(shard, host.paths)
        staged.parent.mkdir()
        staged.write_bytes(b"some")
        monkeypatch.setattr(adopting, "CHUNK_BYTES", 4096)
        with pytest.raises(OSError, match="No space left"):
            host.fetch(shard)
        assert [one.name for one in staged.parent.iterdir()] == [staged.name]


def test_the_state_tells_what_needs_no_download(host: Weights) -> None:
    linked, adopted, missing = (
        host.shard("new"), host.shard(name="y", body=OTHER), host.shard(name="z", body=b"z")
    )  # fmt: skip
    host.fetch(host.shard("old"))
    (host.folder / "flat.gguf").write_bytes(OTHER)
    here = adopting.here([linked, adopted, missing], host.paths)
    assert here == {linked["path"], adopted["path"]}
    assert adopting.here([], host.paths) == set()


def test_a_damaged_receipt_is_none(host: Weights) -> None:
    one = host.shard()
    host.fetch(one)
    for text in ("[]", '{"sha256": "x"}', "{"):
        receipts.receipt_path(one).write_text(text)
        assert not receipts.shard_is_proved(one)
    host.fetch(one)
    assert json.loads(receipts.receipt_path(one).read_text())["size_bytes"] == len(BYTES)


def adopt_folder(host: Weights, folder: Path, *shards: Any, move: bool = False) -> Any:
    spec = {"paths": host.paths, "folder": str(folder), "move": move, "shards": list(shards)}
    return helper_module("weights.adopt_folder").adopt_folder(spec)


def test_a_folder_that_is_named_is_adopted(host: Weights, tmp_path: Path) -> None:
    planned = {**host.shard(), "planned": True}
    of_the_lock = {**host.shard(name="other", body=OTHER), "planned": False}
    missing = {**host.shard(name="missing", body=b"m"), "planned": True}
    folder = tmp_path / "llm"
    (folder / "sub").mkdir(parents=True)
    (folder / "flat.gguf").write_bytes(BYTES)
    # As in a folder of another installation.
    (folder / "sub/other.gguf").write_bytes(OTHER)
    (folder / "sub/other.gguf.receipt.json").write_text("{}")
    answer = adopt_folder(host, folder, planned, of_the_lock, missing)
    assert [one["path"] for one in answer["adopted"]] == [planned["path"], of_the_lock["path"]]
    assert answer["missing"] == [missing["path"]]
    assert Path(planned["path"]).samefile(folder / "flat.gguf")
    assert all(receipts.shard_is_proved(one) for one in (planned, of_the_lock))
    # Again there is nothing to do.
    assert adopt_folder(host, folder, planned, of_the_lock, missing)["adopted"] == []


def test_moved_files_leave_their_folder_and_others_stay(host: Weights, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(BYTES)
    (tmp_path / "y.gguf").write_bytes(OTHER)
    planned = {**host.shard(), "planned": True}
    adopt_folder(host, tmp_path, planned, move=True)
    assert not (tmp_path / "x.gguf").exists()
    assert (tmp_path / "y.gguf").exists()
    assert Path(planned["path"]).read_bytes() == BYTES


def test_what_no_plan_needs_is_not_copied(host: Weights, tmp_path: Path) -> None:
    of_the_lock = {**host.shard(), "planned": False}
    with small_disk(tmp_path / "disk") as disk:
        (disk / "x.gguf").write_bytes(BYTES)
        assert adopt_folder(host, disk, of_the_lock)["adopted"] == []
        (one,) = adopt_folder(host, disk, {**of_the_lock, "planned": True})["adopted"]
    assert one["path"] == of_the_lock["path"]


@pytest.mark.parametrize("folder", ["llm", "/nowhere/at/all"])
def test_a_folder_that_is_none_is_refused(host: Weights, folder: str) -> None:
    with pytest.raises(adopting_error(), match="is not a folder of this host"):
        adopt_folder(host, Path(folder))


def test_a_place_out_of_the_models_folder_is_refused(host: Weights, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(BYTES)
    outside = {**host.shard(), "path": "/etc/cron.d/x", "planned": True}
    with pytest.raises(adopting_error(), match="is not below it"):
        adopt_folder(host, tmp_path, outside)


def adopting_error() -> Any:
    return helper_module("system.commands").HostError
