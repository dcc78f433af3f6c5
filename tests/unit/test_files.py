"""Files on the controller: whole or as before, and a full or forbidden disk is one message."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from corral import files
from corral.bench.store import Pending, ResultStore
from corral.cli.export import _write as write_export
from corral.errors import CorralError
from corral.lock.lock_file import Lock, LockedEngine, write_lock
from corral.rollout import staging
from corral.rollout.journal import Journals
from corral.rollout.locks import fleet_lock
from corral.smoke_model import fixture, gguf_writer, safetensors_writer
from corral.store.api_keys import ensure_keys
from corral.store.engine_archives import Archive, ArchiveStore
from tests.samples import CHAT, host
from tests.unit.bench_samples import result
from tests.unit.rollout_samples import rollout
from tests.unit.small_disks import SIZE_KIB, fill_up, small_disk

TOO_LARGE = b"x" * (SIZE_KIB * 1024 + 1)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk") as folder:
        yield folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_modes_are_set_and_not_inherited(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        files.write_atomic(tmp_path / "open", "a", next_step="x")
        files.create_atomic(tmp_path / "private", b"b", next_step="x", mode=0o600)
    finally:
        os.umask(before)
    assert mode(tmp_path / "open") == 0o644
    assert mode(tmp_path / "private") == 0o600


def test_nobody_reads_a_private_file_while_it_is_written(tmp_path: Path) -> None:
    with files.new_file(tmp_path / "key", next_step="x", mode=0o600) as file:
        file.write(b"secret")
        file.flush()
        (temporary,) = tmp_path.iterdir()
        assert mode(temporary) == 0o600


def test_a_file_that_is_there_is_left_alone_by_create(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert files.create_atomic(path, "mine", next_step="x")
    assert not files.create_atomic(path, "yours", next_step="x")
    assert path.read_text() == "mine"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("before")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    files.write_atomic(tmp_path / "link", "new", next_step="x")
    assert (tmp_path / "target").read_text() == "before"
    assert (tmp_path / "link").read_text() == "new"


def test_a_full_disk_leaves_the_old_file_and_no_half_one(disk: Path) -> None:
    path = disk / "a"
    path.write_text("as before")
    with pytest.raises(CorralError) as caught:
        files.write_atomic(path, TOO_LARGE, next_step="make room")
    assert str(caught.value) == (
        f"{path}: cannot be written: No space left on device\n  Next: make room"
    )
    assert path.read_text() == "as before"
    assert list(disk.iterdir()) == [path]
    with pytest.raises(CorralError, match="No space left"):
        files.create_atomic(disk / "b", TOO_LARGE, next_step="make room")
    assert list(disk.iterdir()) == [path]


def test_whatever_ends_the_writing_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with files.new_file(tmp_path / "a", next_step="x") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["no/folder/a", "file/a", ".", "x" * 300])
def test_a_place_where_no_file_can_be_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CorralError, match="cannot be written: .*\n  Next: x"):
        files.write_atomic(Path(path), "a", next_step="x")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_file_that_cannot_be_small_is_not_read_whole(tmp_path: Path) -> None:
    def read(path: Path) -> bytes:
        return files.read_small(path, most_bytes=3, next_step="x")

    (tmp_path / "a").write_bytes(b"abc")
    assert read(tmp_path / "a") == b"abc"
    (tmp_path / "a").write_bytes(b"abcd")
    with pytest.raises(CorralError, match="larger than 3 bytes"):
        read(tmp_path / "a")
    os.mkfifo(tmp_path / "pipe")
    for other in (Path("/dev/zero"), tmp_path / "pipe", tmp_path):
        with pytest.raises(CorralError, match="cannot be read: not a file"):
            read(other)
    with pytest.raises(CorralError, match="cannot be read: No such file"):
        read(tmp_path / "absent")


PACKED = b"a release" * 100


def archive(content: bytes = PACKED) -> Archive:
    return Archive(
        engine="llama.cpp",
        key="0c1e57098bba-cpu-25455e42",
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        manifest={"flags": []},
    )


def locking(folder: Path) -> None:
    entry = LockedEngine(requested="v1", commit="a" * 40)
    write_lock(folder / "corral.lock", Lock(engines={"e": entry}))


def make_keys(folder: Path) -> None:
    ensure_keys(host(CHAT, keys_folder=str(folder / "keys")), "chat")


def export(folder: Path) -> None:
    write_export(folder / "a.env", "A=1\n", mode=0o644, force=False)


def import_archive(folder: Path) -> None:
    other = ArchiveStore(folder.with_name("other"))
    ArchiveStore(folder / "store").import_from(other.export(archive(), folder.with_name("stick")))


def export_archive(folder: Path) -> None:
    ArchiveStore(folder.with_name("other")).export(archive(), folder / "stick")


def receive_archive(folder: Path) -> None:
    store = ArchiveStore(folder / "store")
    received = store.incoming("llama.cpp", archive().key)
    received.write_bytes(PACKED)
    store.add(received, archive())


def keep_result(folder: Path) -> None:
    ResultStore(folder).save(result())


def expect_result(folder: Path) -> None:
    ResultStore(folder).expect("a", "chat", Pending(spec_sha256="x", before=None))


def journal(folder: Path) -> None:
    Journals(folder).save(rollout("a"))


WRITERS: list[Callable[[Path], None]] = [
    locking, make_keys, export, import_archive, export_archive, receive_archive, keep_result,
    expect_result, journal,
]  # fmt: skip


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A folder to write in, and beside it an archive to copy."""
    other = ArchiveStore(tmp_path / "other")
    received = other.incoming("llama.cpp", archive().key)
    received.write_bytes(PACKED)
    other.add(received, archive())
    other.export(archive(), tmp_path / "stick")
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


@pytest.mark.parametrize("write", WRITERS)
def test_each_writer_tells_a_full_disk_and_leaves_nothing(
    there: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None]
) -> None:
    with monkeypatch.context() as patched:
        fill_up(patched)
        with pytest.raises(CorralError, match="cannot be written: No space left on device"):
            write(there)
    assert [path for path in there.rglob("*") if not path.is_dir()] == []
    write(there)
    written = {p: p.read_bytes() for p in there.rglob("*") if p.is_file()}
    assert written
    with monkeypatch.context() as patched:
        fill_up(patched)
        if write not in (make_keys, export):
            with pytest.raises(CorralError):
                write(there)
    assert {p: p.read_bytes() for p in there.rglob("*") if p.is_file()} == written


def test_an_archive_that_does_not_fit_is_one_message(disk: Path, tmp_path: Path) -> None:
    """With a real disk: bytes are refused while they are copied."""
    content = os.urandom(2 * SIZE_KIB * 1024)
    large = archive(content)
    other = ArchiveStore(tmp_path / "other")
    received = other.incoming("llama.cpp", large.key)
    received.write_bytes(content)
    other.add(received, large)
    described = other.export(large, tmp_path / "stick")
    for copy in (
        lambda: ArchiveStore(disk / "store").import_from(described),
        lambda: other.export(large, disk / "stick"),
    ):
        with pytest.raises(CorralError, match="cannot be written: No space left on device"):
            copy()
    assert [path for path in disk.rglob("*") if not path.is_dir()] == []


def test_the_model_of_smoke_runs_tells_where_it_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(gguf_writer, "write", full)
    monkeypatch.setattr(safetensors_writer, "write", lambda folder, _: full(folder))
    for content in (fixture._gguf, fixture._folder):
        with pytest.raises(CorralError, match=f"{tmp_path}: cannot be written: No space left on"):
            content.__wrapped__()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_fleet_tells_where_it_cannot_be(disk: Path, tmp_path: Path) -> None:
    def locked(folder: Path) -> None:
        with fleet_lock(folder, tmp_path / "i.py", by="ann", since="now"):
            pass

    locked(disk)
    for lock in disk.glob("*.lock"):
        lock.unlink()
    (disk / "filler").write_bytes(TOO_LARGE[:-1])
    with pytest.raises(CorralError, match=r"i-.*\.lock: cannot be written: No space left"):
        locked(disk)
    (tmp_path / "file").write_text("")
    with pytest.raises(CorralError, match="cannot be written: Not a directory"):
        locked(tmp_path / "file" / "state")


def test_a_log_that_fills_the_disk_does_not_end_staging(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyinfra goes on, and each line is shown."""
    real = subprocess.Popen

    def popen(_: object, **how: Any) -> subprocess.Popen[str]:
        return real([sys.executable, "-c", "[print('x' * 999) for _ in range(200)]"], **how)

    said: list[str] = []
    # The disk goes by a program as well.
    with monkeypatch.context() as patched:
        patched.setattr(subprocess, "Popen", popen)
        assert staging.run_pyinfra(Path("i.py"), (), disk / "log", said.append) == 0
    assert len(said) == 200
    assert (disk / "log").stat().st_size <= SIZE_KIB * 1024


def test_where_no_log_can_be_nothing_is_staged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def popen(*_: object, **__: object) -> NoReturn:
        raise AssertionError("started")

    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(CorralError, match="cannot be written"):
        staging.run_pyinfra(Path("i.py"), (), tmp_path / "no" / "log", print)
