"""A release as an archive: the same bytes, whole or nothing, and no file beside its own."""

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

archive = helper_module("archive")
installing = helper_module("install")
HostError = helper_module("tools").HostError


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
    answer = installing.install(packed)
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
    with pytest.raises(HostError, match="not as its manifest says: bin/llama-server"):
        archive.pack(spec)
    assert not archive.archive_path(spec["state"], spec["key"]).exists()


def test_an_archive_with_a_flipped_byte_is_refused_and_removed(packed: dict[str, Any]) -> None:
    path = Path(packed["archive"]["path"])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(HostError, match="sha256(?s:.*)nothing was installed"):
        installing.install(packed)
    assert not path.exists()
    assert not Path(packed["folder"]).parent.exists()


Change = Callable[[tarfile.TarFile], None]


def bundle(packed: dict[str, Any], change: Change) -> dict[str, Any]:
    """An archive of other content, whose digest is the planned one."""
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
    ],
)
def test_anything_but_plain_files_is_refused(
    packed: dict[str, Any], tmp_path: Path, change: Change
) -> None:
    with pytest.raises(HostError, match="not a plain file inside of it"):
        installing.install(bundle(packed, change))
    assert not Path(packed["folder"]).exists()
    assert not list(tmp_path.rglob("outside"))
    assert nothing_in(Path(packed["folder"]).parent)


def test_what_is_no_archive_is_told(packed: dict[str, Any]) -> None:
    with pytest.raises(HostError, match="is no archive of a release"):
        installing.install(compressed(packed, b"no archive" * 100))


def test_the_archive_of_another_release_is_refused(packed: dict[str, Any]) -> None:
    other = {**packed, "key": "c0ffee-cpu-2", "folder": packed["folder"] + "2"}
    with pytest.raises(HostError, match="holds another release than llama.cpp c0ffee-cpu-2"):
        installing.install(other)


def test_a_native_release_for_other_features_is_refused(
    packed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    older = {"model": "Older", "flags": ["sse2"]}
    monkeypatch.setattr(helper_module("state"), "cpu", lambda: older)
    with pytest.raises(HostError, match="features that this one lacks"):
        installing.install({**packed, "native": True})
    assert not Path(packed["folder"]).exists()


def test_a_release_that_does_not_answer_here_is_not_installed(packed: dict[str, Any]) -> None:
    Path(packed["smoke_model"]["path"]).write_bytes(b"rot")
    with pytest.raises(HostError, match="the model of the smoke run"):
        installing.install(packed)
    assert nothing_in(Path(packed["folder"]).parent)
    # The archive was right: the next attempt needs no other.
    assert Path(packed["archive"]["path"]).exists()


def test_an_installed_release_is_left_alone(packed: dict[str, Any]) -> None:
    archived = Path(packed["archive"]["path"]).read_bytes()
    installing.install(packed)
    server = Path(packed["folder"]) / "bin" / "llama-server"
    before = server.stat().st_ino
    Path(packed["archive"]["path"]).write_bytes(archived)
    assert installing.install(packed)["manifest"]["key"] == packed["key"]
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
