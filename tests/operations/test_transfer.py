"""Transfer of archives: what arrives, what does not, and the messages."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from paramiko import SSHException
from pyinfra.connectors.fake import FakeConnector

from corral.store.engine_archives import Archive, ArchiveStore
from operations import transfer
from operations.metered_file import metered_file
from operations.transfer import bring_home, send
from tests.operations.fakes import asked, prepared
from tests.samples import CHAT, plan

(RELEASE,) = plan(CHAT).releases
BYTES = b"an archive"
PACKED = {
    "path": "/var/lib/corral/archives/a.tar.zst",
    "size_bytes": len(BYTES),
    "sha256": hashlib.sha256(BYTES).hexdigest(),
}
ANSWER = {"archive": PACKED, "manifest": {"flags": []}}


def sending(content: bytes) -> Any:
    def get_file(_: FakeConnector, _remote: str, local: Any, **_arguments: object) -> bool:
        local.write(content)
        return True

    return patch.object(FakeConnector, "get_file", get_file)


def left(store: ArchiveStore) -> list[str]:
    return sorted(path.name for path in store.folder.rglob("*") if path.is_file())


def stored(folder: Path, archive: Archive) -> ArchiveStore:
    """A store with a file for the archive."""
    store = ArchiveStore(folder)
    store.path(archive).parent.mkdir(parents=True, exist_ok=True)
    store.path(archive).write_bytes(BYTES)
    return store


def test_what_arrived_is_in_the_store_and_gone_from_the_host(tmp_path: Path) -> None:
    store = ArchiveStore(tmp_path)
    with prepared() as host, sending(BYTES):
        assert bring_home(store, RELEASE, host, ANSWER)
        assert asked(host) == [f"rm -f {PACKED['path']}"]
    found = store.find(RELEASE.engine, RELEASE.key)
    assert found
    assert store.sound(found)


def test_a_flipped_byte_is_refused_and_stays_on_the_host(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = ArchiveStore(tmp_path)
    with prepared() as host, sending(BYTES[:-1] + b"?"):
        assert not bring_home(store, RELEASE, host, ANSWER)
        assert asked(host) == []
    assert "do not match its digest" in caplog.text
    assert left(store) == []


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(28, "No space left on device"),
            "No space left on device. Next: see that the disk",
        ),
        (SSHException("gone"), "connection lost. Next: run the same deploy again"),
        (EOFError(), "connection lost"),
    ],
)
def test_a_transfer_that_breaks_off_is_told_and_leaves_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Exception, said: str
) -> None:
    store = ArchiveStore(tmp_path)
    archive = Archive(engine=RELEASE.engine, key=RELEASE.key, manifest={"flags": []}, size_bytes=1,
                      sha256="0" * 64)  # fmt: skip
    with prepared() as host:
        with patch.object(FakeConnector, "get_file", side_effect=error):
            assert not bring_home(store, RELEASE, host, ANSWER)
        assert said in caplog.text
        assert left(store) == []
        caplog.clear()
        with patch.object(FakeConnector, "put_file", side_effect=error):
            assert not send(stored(tmp_path, archive), archive, host, "/var/lib/corral/archives/a")
        store.path(archive).unlink()
        assert said in caplog.text


def test_an_archive_is_sent_from_the_store(tmp_path: Path) -> None:
    store = ArchiveStore(tmp_path)
    with prepared() as host, sending(BYTES):
        bring_home(store, RELEASE, host, ANSWER)
        (archive,) = store.all()
        with patch.object(FakeConnector, "put_file", return_value=True) as put:
            assert send(store, archive, host, "/there")
            assert send(store, archive, host, "/there")
        commands = asked(host)
    # Two concurrent transfers never write into the same file, nor into one that is being read.
    first, second = (call.args for call in put.call_args_list)
    assert first[0].name == second[0].name == str(store.path(archive))
    assert first[1] != second[1]
    assert commands[1:] == [f"mv -T {first[1]} /there", f"mv -T {second[1]} /there"]


@pytest.mark.parametrize("fault", [None, OSError(28, "No space left on device")])
def test_what_a_sudo_users_transfer_leaves_on_its_way_is_removed(
    fault: OSError | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = Archive(engine=RELEASE.engine, key=RELEASE.key, manifest={"flags": []}, size_bytes=1,
                      sha256="0" * 64)  # fmt: skip
    becomes = {"_sudo": True, "_sudo_user": "root", "_timeout": 5}
    monkeypatch.setattr(transfer, "arguments", lambda _: becomes)
    with (
        prepared() as host,
        patch.object(host, "get_temp_filename", return_value="/tmp/on-its-way"),
        patch.object(FakeConnector, "put_file", side_effect=fault, return_value=False) as put,
        patch.object(host, "run_shell_command", return_value=(True, None)) as ran,
    ):
        assert not send(stored(tmp_path, archive), archive, host, "/there")
    assert put.call_args.args[2] == "/tmp/on-its-way"
    # For another user pyinfra would need setfacl on the host.
    assert put.call_args.kwargs == {"_sudo": True, "_timeout": 5}
    ((command,), how) = ran.call_args
    # The user who put it there removes it, which needs no sudo.
    assert (str(command), how) == ("rm -f /tmp/on-its-way", {"_timeout": 5})


def test_an_archive_that_another_deploy_took_first_is_fine_if_it_is_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = ArchiveStore(tmp_path)
    gone = patch.object(FakeConnector, "get_file", side_effect=FileNotFoundError(2, "gone"))
    with prepared() as host, gone:
        assert not bring_home(store, RELEASE, host, ANSWER)
    assert "did not arrive: [Errno 2] gone" in caplog.text
    with prepared() as host, sending(BYTES):
        assert bring_home(store, RELEASE, host, ANSWER)
    with prepared() as host, gone:
        assert bring_home(store, RELEASE, host, ANSWER)
    assert len(store.all()) == 1


def test_a_long_move_says_how_far_it_is_and_a_new_try_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    caplog.set_level("INFO", logger="pyinfra")
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    path = tmp_path / "a.tar.zst"
    path.write_bytes(bytes(4096))
    with prepared() as host, metered_file(path, "rb", "sending", 4096, host) as file:
        assert file.read(1024) == bytes(1024)
        assert "left" not in caplog.text
        now[0] = 10
        assert (len(file.read(1024)), file.tell()) == (1024, 2048)
        assert "[##########..........] 50%, 2.0 KiB of 4.0 KiB, 205 B/s, 10 s left" in caplog.text
        file.seek(0)
        now[0] = 20
        file.read(1024)
    assert "] 25%, 1.0 KiB of 4.0 KiB, 102 B/s, 30 s left: sending a.tar.zst" in caplog.text
