"""A release as an archive: the same bytes each time, all or nothing, and no other files."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit import helper_hosts as hosts
from tests.unit import release_samples as samples
from tests.unit.helper_modules import helper_module
from tests.unit.release_samples import Engine

pytestmark = pytest.mark.slow

archive = helper_module("release.archive")
HostError = helper_module("system.commands").HostError


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts.no_gpu(monkeypatch)


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    return samples.release(tmp_path)


@pytest.fixture
def packed(spec: dict[str, Any], engine: Engine, tmp_path: Path) -> dict[str, Any]:
    """The spec of an install on another host, with the archive of the first one."""
    samples.install(spec, engine)
    answer = archive.pack(spec)
    other = tmp_path / "other"
    other.mkdir()
    return {**samples.release(other), "archive": answer["archive"]}


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "installed.json"]
    return {str(f.relative_to(folder)): (f.stat().st_mode, f.read_bytes()) for f in files}


def nothing_in(folder: Path) -> bool:
    return list(folder.iterdir()) == []


def test_what_is_unpacked_is_what_was_packed(spec: dict[str, Any], packed: dict[str, Any]) -> None:
    answer = archive.install(packed)
    there, here = Path(packed["folder"]), Path(spec["folder"])
    assert tree(there) == tree(here)
    assert answer["manifest"] == json.loads((here / "manifest.json").read_text())
    receipt = json.loads((there / "installed.json").read_text())
    assert receipt["smoke"] == "24 tokens on CPU"
    assert not Path(packed["archive"]["path"]).exists()
    assert [path.name for path in there.parent.iterdir()] == [there.name]


def test_equal_releases_give_equal_bytes(spec: dict[str, Any], packed: dict[str, Any]) -> None:
    folder = Path(spec["folder"])
    copied = Path(shutil.copytree(folder, folder.with_name("copied"), copy_function=shutil.copy))
    shutil.rmtree(folder)
    copied.rename(folder)
    (folder / "installed.json").write_text("another receipt")
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, (1, 1))
    assert archive.pack(spec)["archive"] == packed["archive"]


def test_files_are_packed_in_order_and_the_receipt_is_not(tmp_path: Path) -> None:
    names = [f"{number:02}" for number in range(20)]
    for name in [*reversed(names), "installed.json"]:
        (tmp_path / name).touch()
    assert archive.members(tmp_path) == names


def test_packing_again_replaces_what_a_killed_one_left(
    spec: dict[str, Any], packed: dict[str, Any]
) -> None:
    path = Path(packed["archive"]["path"])
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(b"half")
    path.unlink()
    assert archive.pack(spec)["archive"] == packed["archive"]
    assert not partial.exists()


def test_a_release_that_rotted_is_not_packed(spec: dict[str, Any], engine: Engine) -> None:
    folder = samples.install(spec, engine)
    (folder / "bin" / "llama-server").write_bytes(b"rot")
    with pytest.raises(HostError, match="files differ from its manifest: bin/llama-server"):
        archive.pack(spec)
    assert not archive.archive_path(spec["state"], spec["key"]).exists()


def test_an_archive_with_a_flipped_byte_is_refused_and_removed(packed: dict[str, Any]) -> None:
    path = Path(packed["archive"]["path"])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(HostError, match="sha256(?s:.*)nothing was installed"):
        archive.install(packed)
    assert not path.exists()
    assert not Path(packed["folder"]).parent.exists()


Change = Callable[[tarfile.TarFile], None]


def bundle(packed: dict[str, Any], change: Change) -> dict[str, Any]:
    """An archive with other content, planned with its digest."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        change(tar)
    return compressed(packed, buffer.getvalue())


def compressed(packed: dict[str, Any], content: bytes) -> dict[str, Any]:
    data = subprocess.run(["zstd", "-c"], input=content, capture_output=True, check=True).stdout
    path = Path(packed["archive"]["path"])
    path.write_bytes(data)
    found = {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return {**packed, "archive": {"path": str(path), **found}}


def file(name: str, **fields: Any) -> Change:
    def add(tar: tarfile.TarFile) -> None:
        entry = tarfile.TarInfo(name)
        for field, value in fields.items():
            setattr(entry, field, value)
        tar.addfile(entry)

    return add


@pytest.mark.parametrize(
    "change",
    [
        file("../outside"),
        file("/tmp/corral-outside"),
        file("bin/../../outside"),
        file("bin/link", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        file("bin/hard", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
        file("bin/device", type=tarfile.CHRTYPE),
        file("bin", type=tarfile.DIRTYPE),
        file("bin/pipe", type=tarfile.FIFOTYPE),
        file("bin/disk", type=tarfile.BLKTYPE),
        file("bin/sparse", type=tarfile.GNUTYPE_SPARSE),
        file("bin/a\nb"),
        file("bin/a\x1b[2J"),
        file("bin/" + "x" * 201),
        # Names that are longer than a header, by extensions of the format.
        file("bin/" + "x/" * 200 + "outside"),
        file("./bin/outside"),
        file("bin//outside"),
        file("."),
    ],
)
def test_anything_but_plain_files_is_refused(
    packed: dict[str, Any], tmp_path: Path, change: Change
) -> None:
    with pytest.raises(HostError, match="not a plain file inside of it"):
        archive.install(bundle(packed, change))
    assert not Path(packed["folder"]).exists()
    assert not list(tmp_path.rglob("outside"))
    assert nothing_in(Path(packed["folder"]).parent)


def whole(packed: dict[str, Any]) -> bytes:
    """The tar inside of the archive."""
    command = ["zstd", "-dc", packed["archive"]["path"]]
    return subprocess.run(command, capture_output=True, check=True).stdout


def refused(packed: dict[str, Any], tmp_path: Path, why: str) -> None:
    """Check for a HostError with a next step, and that nothing but the archive is left."""
    before = sorted(path for path in tmp_path.rglob("*") if "outside" in path.name)
    with pytest.raises(HostError, match=f"(?s){why}.*Next: ") as caught:
        archive.install(packed)
    assert "\x1b" not in str(caught.value)
    assert not Path(packed["folder"]).exists()
    assert nothing_in(Path(packed["folder"]).parent)
    assert sorted(path for path in tmp_path.rglob("*") if "outside" in path.name) == before


def twice(first: str, second: str) -> Change:
    def add(tar: tarfile.TarFile) -> None:
        for name in (first, second):
            file(name)(tar)

    return add


@pytest.mark.parametrize(
    "change", [twice("bin/a", "bin/a"), twice("bin", "bin/a"), twice("bin/a", "bin")]
)
def test_a_file_that_is_in_it_twice_is_refused(
    packed: dict[str, Any], tmp_path: Path, change: Change
) -> None:
    refused(bundle(packed, change), tmp_path, "is in it twice")


@pytest.mark.parametrize("reported", [1, 100_000])
def test_more_bytes_than_its_manifest_says_are_not_written(
    packed: dict[str, Any], tmp_path: Path, reported: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bomb: a gigabyte of zeros packs into some kilobytes."""
    monkeypatch.setattr(archive, "MANIFEST_BYTES", 0)
    written: list[int] = []
    monkeypatch.setattr(archive, "take", lambda _, entry, __: written.append(entry.size))
    zeros = tarfile.TarInfo("bin/zeros")
    zeros.size = reported + 1

    def add(tar: tarfile.TarFile) -> None:
        tar.addfile(zeros, io.BytesIO(bytes(reported + 1)))

    bomb = bundle(packed, add)
    bomb["archive"]["unpacked_bytes"] = reported
    refused(bomb, tmp_path, "holds more than its manifest says")
    assert written == []


def test_without_a_manifest_at_hand_there_is_a_limit_too(
    packed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed["limits"]["unpacked_bytes"] = 1000
    monkeypatch.setattr(archive, "MANIFEST_BYTES", 1000)
    refused(packed, tmp_path, "holds more than its manifest says")


def test_a_manifest_cannot_allow_more_than_the_plan(
    packed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MANIFEST_BYTES", 1000)
    packed["limits"]["unpacked_bytes"] = 1000
    packed["archive"]["unpacked_bytes"] = 10**6
    refused(packed, tmp_path, "holds more than its manifest says")


def test_what_the_manifest_says_is_enough(packed: dict[str, Any], spec: dict[str, Any]) -> None:
    reported = json.loads((Path(spec["folder"]) / "manifest.json").read_text())["size_bytes"]
    packed["archive"]["unpacked_bytes"] = reported
    archive.install(packed)


def test_a_release_that_the_disk_has_no_room_for_is_not_begun(
    packed: dict[str, Any], tmp_path: Path
) -> None:
    packed["archive"]["unpacked_bytes"] = 2**60
    refused(packed, tmp_path, "MiB are free")


def test_a_disk_that_fills_up_meanwhile_is_told(
    packed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive, "take", full)
    refused(packed, tmp_path, "unpacking .* failed: No space left on device")


def test_more_files_than_the_plan_allows_are_refused(
    packed: dict[str, Any], tmp_path: Path
) -> None:
    packed["limits"]["unpacked_files"] = 1
    refused(packed, tmp_path, "more than 1 files")


@pytest.mark.parametrize("more", [bytes(20_480), b"x" * 512 + bytes(20_480)])
def test_what_follows_its_end_is_refused(
    packed: dict[str, Any], tmp_path: Path, more: bytes
) -> None:
    refused(compressed(packed, whole(packed) + more), tmp_path, "something follows its end")


@pytest.mark.parametrize("length", [511, 513, 700, 20_000])
def test_half_an_archive_is_refused(packed: dict[str, Any], tmp_path: Path, length: int) -> None:
    refused(compressed(packed, whole(packed)[:length]), tmp_path, "it is cut off")


def test_sizes_and_names_that_no_header_of_ours_has_are_refused(
    packed: dict[str, Any], tmp_path: Path
) -> None:
    entry = tarfile.TarInfo("bin/a")
    for field, value in (("size", b"\xff" * 12), ("name", b"bin/\xff")):
        header = bytearray(entry.tobuf(tarfile.USTAR_FORMAT))
        start = {"size": 124, "name": 0}[field]
        header[start : start + len(value)] = value
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        refused(compressed(packed, bytes(header) + bytes(1024)), tmp_path, "is not an archive")


def test_modes_and_owners_of_an_archive_do_not_count(packed: dict[str, Any]) -> None:
    changed = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(whole(packed))) as old,
        tarfile.open(fileobj=changed, mode="w", format=tarfile.USTAR_FORMAT) as new,
    ):
        for entry in old:
            entry.mode, entry.uid, entry.gid = 0o7777, 1234, 1234
            new.addfile(entry, old.extractfile(entry))
    archive.install(compressed(packed, changed.getvalue()))
    files = [path for path in Path(packed["folder"]).rglob("*") if path.is_file()]
    assert files
    for path in files:
        assert path.stat().st_mode & 0o7022 == 0
        assert path.stat().st_uid == os.getuid()


@pytest.mark.parametrize(
    "manifest", [b"", b"[]", b"null", b"\xff", b'{"files": []}', b"[" * 100_000, None]
)
def test_an_archive_with_an_odd_manifest_is_refused(
    packed: dict[str, Any], tmp_path: Path, manifest: bytes | None
) -> None:
    def add(tar: tarfile.TarFile) -> None:
        entry = tarfile.TarInfo("manifest.json" if manifest is not None else "bin/a")
        entry.size = len(manifest or b"")
        tar.addfile(entry, io.BytesIO(manifest or b""))

    refused(bundle(packed, add), tmp_path, "holds another release")


def test_what_is_no_archive_is_told(packed: dict[str, Any]) -> None:
    with pytest.raises(HostError, match="is not an archive of a release"):
        archive.install(compressed(packed, b"no archive" * 100))


def test_the_archive_of_another_release_is_refused(packed: dict[str, Any]) -> None:
    other = {**packed, "key": "c0ffee-cpu-2", "folder": packed["folder"] + "2"}
    with pytest.raises(HostError, match="holds another release than llama.cpp c0ffee-cpu-2"):
        archive.install(other)


def test_a_native_release_for_other_features_is_refused(
    packed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    older = {"model": "Older", "flags": ["sse2"]}
    monkeypatch.setattr(helper_module("release.whole"), "cpu", lambda: older)
    with pytest.raises(HostError, match="features that this one lacks"):
        archive.install({**packed, "native": True})
    assert not Path(packed["folder"]).exists()


def test_a_release_that_does_not_answer_here_is_not_installed(packed: dict[str, Any]) -> None:
    Path(packed["smoke_model"]["path"]).write_bytes(b"rot")
    with pytest.raises(HostError, match="the model of the smoke run"):
        archive.install(packed)
    assert nothing_in(Path(packed["folder"]).parent)
    # The archive was right, so it is kept for the next attempt.
    assert Path(packed["archive"]["path"]).exists()


def test_an_installed_release_is_left_alone(packed: dict[str, Any]) -> None:
    archived = Path(packed["archive"]["path"]).read_bytes()
    archive.install(packed)
    server = Path(packed["folder"]) / "bin" / "llama-server"
    before = server.stat().st_ino
    Path(packed["archive"]["path"]).write_bytes(archived)
    assert archive.install(packed)["manifest"]["key"] == packed["key"]
    assert server.stat().st_ino == before
    assert not Path(packed["archive"]["path"]).exists()


def test_a_compressor_that_fails_is_told(
    spec: dict[str, Any], engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples.install(spec, engine)
    full = "echo 'zstd: error 70 : No space left on device' >&2; exit 70"
    hosts.on_path(monkeypatch, tmp_path / "path", "zstd", full)
    with pytest.raises(HostError, match="packing .* failed: .*No space left on device"):
        archive.pack(spec)
    assert nothing_in(Path(spec["state"]) / "archives")


def test_the_progress_of_large_releases_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(archive, "PROGRESS_BYTES", 2**20)
    folder, tar = tmp_path / "release", tmp_path / "tar"
    (folder / "lib").mkdir(parents=True)
    for number in range(3):
        (folder / "lib" / f"{number}").write_bytes(bytes(700 * 1024))
    with tar.open("wb") as file:
        archive.write_tar(folder, file)
    assert capsys.readouterr().out.splitlines() == ["1 MiB are packed", "2 MiB are packed"]
    with tar.open("rb") as file:
        archive.take_all(file, tmp_path / "staging", 2**30, 10)
    assert capsys.readouterr().out.splitlines() == ["1 MiB are unpacked", "2 MiB are unpacked"]
