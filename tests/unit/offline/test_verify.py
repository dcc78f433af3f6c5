"""Proving a bundle: rot, loss, links and forged manifests are found, each in one message."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.offline.manifest import DOCUMENT, SIGNATURE
from corral.offline.signature import require_signature, sign
from corral.offline.verify import Opened, prove, refuse_other_base, surplus
from tests.unit.offline import made

PASSPHRASE = "correct horse"  # noqa: S105


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made.write(tmp_path / "disk")
    return tmp_path / "disk"


def proved(folder: Path, *, again: bool = True) -> None:
    prove(Opened(folder), made.quiet, again=again)


def flip(path: Path) -> None:
    """One bit, with the times that it had."""
    data, before = bytearray(path.read_bytes()), path.stat()
    data[3] ^= 1
    path.write_bytes(bytes(data))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_whole_bundle_is_proved(folder: Path) -> None:
    proved(folder)
    assert surplus(Opened(folder)) == []


def test_a_flipped_bit_is_found_and_named(folder: Path) -> None:
    flip(folder / made.WEIGHTS)
    with pytest.raises(CorralError, match=f"{made.WEIGHTS} has sha256") as error:
        proved(folder)
    assert "copy these files again" in error.value.next_step


def test_a_missing_and_a_short_file_are_named_together(folder: Path) -> None:
    (folder / made.DEB).unlink()
    (folder / made.WHEEL).write_bytes(b"a")
    with pytest.raises(CorralError) as error:
        proved(folder)
    assert f"{made.DEB} is missing" in error.value.what
    assert f"{made.WHEEL} has 1 bytes instead of 7" in error.value.what


def test_many_faults_are_counted(folder: Path) -> None:
    names = {f"apt/debian-12/p{n}.deb": b"x" for n in range(9)}
    made.write(folder, names)
    for name in names:
        (folder / name).unlink()
    with pytest.raises(CorralError, match="and 4 more files"):
        proved(folder)


def test_a_link_out_of_the_bundle_is_no_file_of_it(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(made.FILES[made.WEIGHTS])
    (folder / made.WEIGHTS).unlink()
    (folder / made.WEIGHTS).symlink_to(secret)
    with pytest.raises(CorralError, match=f"{made.WEIGHTS} is missing"):
        proved(folder)


def test_a_file_that_nobody_names_is_told_and_stays(folder: Path) -> None:
    (folder / "apt" / "extra").write_text("x")
    proved(folder)
    assert surplus(Opened(folder)) == ["apt/extra"]
    assert (folder / "apt" / "extra").exists()


def test_what_was_proved_is_not_read_again_by_serve_until_it_changes(folder: Path) -> None:
    proved(folder)
    flip(folder / made.WEIGHTS)
    proved(folder, again=False)
    with pytest.raises(CorralError, match="has sha256"):
        proved(folder, again=True)
    (folder / made.WEIGHTS).touch()
    with pytest.raises(CorralError, match="has sha256"):
        proved(folder, again=False)


def test_a_bundle_on_top_of_another_one_is_not_served_with_a_third(tmp_path: Path) -> None:
    made.write(tmp_path / "first")
    made.write(tmp_path / "other", by="somebody")
    first = Opened(tmp_path / "first")
    since = {"at": first.bundle.at, "manifest_sha256": first.manifest_sha256}
    made.write(tmp_path / "second", since=since)
    second = Opened(tmp_path / "second")
    refuse_other_base([first, second])
    refuse_other_base([second])
    with pytest.raises(CorralError, match="adds to a bundle of"):
        refuse_other_base([Opened(tmp_path / "other"), second])


def key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    public, secret = folder / f"{name}.pub", folder / f"{name}.key"
    subprocess.run(
        ["minisign", "-G", "-p", str(public), "-s", str(secret)], check=True,
        input=f"{PASSPHRASE}\n{PASSPHRASE}\n", text=True, capture_output=True,
    )  # fmt: skip
    return public, secret


@pytest.mark.slow
def test_a_signature_proves_whose_bundle_it_is(folder: Path, tmp_path: Path) -> None:
    public, secret = key_pair(tmp_path, "ours")
    theirs, _ = key_pair(tmp_path, "theirs")
    with pytest.raises(CorralError, match="is not signed"):
        require_signature(folder, public)
    sign(folder, secret, passphrase=PASSPHRASE)
    assert Opened(folder, public_key=public).bundle == made.bundle()
    with pytest.raises(CorralError, match="is not what the key of .*theirs.pub signed"):
        require_signature(folder, theirs)
    # Somebody adds a file and describes it.
    made.write(folder, {**made.FILES, "apt/debian-12/evil.deb": b"evil"})
    with pytest.raises(CorralError, match="do not use this bundle|is not what the key"):
        Opened(folder, public_key=public)


@pytest.mark.slow
def test_a_wrong_passphrase_leaves_no_signature(folder: Path, tmp_path: Path) -> None:
    _, secret = key_pair(tmp_path, "ours")
    for passphrase in ("wrong", None):
        with pytest.raises(CorralError, match="cannot be signed") as error:
            sign(folder, secret, passphrase=passphrase)
        assert "--passphrase-stdin" in error.value.next_step
    names = {path.name for path in folder.iterdir()}
    assert DOCUMENT in names
    assert not [name for name in names if SIGNATURE in name]


@pytest.mark.slow
def test_a_key_without_a_passphrase_signs(folder: Path, tmp_path: Path) -> None:
    public, secret = tmp_path / "w.pub", tmp_path / "w.key"
    command = ["minisign", "-G", "-W", "-p", str(public), "-s", str(secret)]
    subprocess.run(command, check=True, capture_output=True)
    sign(folder, secret, passphrase=None)
    require_signature(folder, public)
