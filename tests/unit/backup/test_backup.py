"""`corral backup` and `corral restore`: another controller gets what only the first one had."""

from __future__ import annotations

import io
import json
import stat
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from corral.backup.document import DOCUMENT
from tests import sealing
from tests.unit.cli.test_cli import Corral, Said, corral

__all__ = ["corral"]

pytestmark = pytest.mark.slow

SITE = """
chat = {{"name": "chat", "profile": "tiny-chat", "port": 8001}}
gate = {{"aliases": {{"tiny-glm-moe": {{"port": 8000}}}}, "tls_certificate": "{pem}",
        "address": "10.0.0.9", "trusted_networks": ["10.0.0.0/24"]}}
shared = {{"keys_folder": "{keys}", "ssh_known_hosts_file": "{known}"}}
servers = [
    ("node-1", {{"instances": [chat], "ssh_hostname": "10.0.0.1", **shared}}),
    ("gw", {{"gateway": gate, "ssh_hostname": "10.0.0.9", "ssh_port": 2222, **shared}}),
]
"""
KEY = "sk-chat-" + "a" * 24
LINES = ["10.0.0.1 ssh-ed25519 AAAA1", "[10.0.0.9]:2222 ssh-ed25519 AAAA2"]


@dataclass
class Controller:
    """A machine with a checkout: its home folder, and the folders that its inventory names."""

    corral: Corral
    home: Path

    def enter(self) -> None:
        patch = self.corral.monkeypatch
        patch.setenv("HOME", str(self.home))
        for name in ("CONFIG", "DATA", "STATE", "CACHE"):
            patch.setenv(f"XDG_{name}_HOME", str(self.home / name.lower()))
        folders = {"keys": self.keys, "known": self.known, "pem": self.pem}
        site = self.corral.root / "inventories/site.py"
        site.write_text(SITE.format(**folders))

    @property
    def keys(self) -> Path:
        return self.home / "own-keys"

    @property
    def known(self) -> Path:
        return self.home / "known"

    @property
    def pem(self) -> Path:
        return self.home / "gw.pem"

    @property
    def journal(self) -> Path:
        return self.home / "state/corral/rollouts/r1/rollout.json"

    def fill(self) -> None:
        files = {
            self.keys / "node-1/chat": f"{KEY}\n",
            self.keys / "node-1/.replaced/chat-1": "older\n",
            self.keys / "gw/gateway-tiny-glm-moe": "sk-client\n",
            self.home / "config/corral/keys/gone/chat": "sk-of-nobody\n",
            self.pem: "PRIVATE KEY-----",
            self.journal: "{}",
            self.known: "\n".join([*LINES, "other.example ssh-ed25519 AAAA3"]) + "\n",
        }
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def __call__(self, *words: str) -> Said:
        self.enter()
        return self.corral(*words)

    def files(self) -> dict[str, str]:
        return {
            str(path.relative_to(self.home)): path.read_text()
            for path in sorted(self.home.rglob("*"))
            if path.is_file()
        }


@pytest.fixture
def first(corral: Corral, tmp_path: Path) -> Controller:
    found = Controller(corral, tmp_path / "first")
    found.fill()
    return found


@pytest.fixture
def second(corral: Corral, tmp_path: Path) -> Controller:
    """Another machine, with a clone of the same repository."""
    (tmp_path / "second").mkdir()
    return Controller(corral, tmp_path / "second")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "the.backup"


def test_what_one_controller_had_another_one_has(
    first: Controller, second: Controller, file: Path
) -> None:
    said = first("backup", str(file))
    assert said.code == 0, said.err
    assert "and the ssh keys of 2 hosts" in said.out
    assert "not encrypted, and it holds API keys" in said.err
    assert KEY not in said.out + said.err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    said = second("restore", str(file))
    assert (said.code, said.err) == (0, "")
    expected = first.files()
    expected["known"] = "\n".join(LINES) + "\n"
    assert second.files() == expected
    secrets = (second.keys / "node-1/chat", second.keys / "gw/gateway-tiny-glm-moe", second.pem)
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
    assert stat.S_IMODE((second.keys / "node-1").stat().st_mode) == 0o700
    again = second("restore", str(file))
    assert again.code == 0
    assert "0 files restored" in again.out
    assert "0 lines of known hosts added" in again.out


def test_the_lock_of_the_backup_comes_back(
    first: Controller, second: Controller, file: Path
) -> None:
    lock = first.corral.root / "corral.lock"
    text = lock.read_text()
    first("backup", str(file))
    lock.unlink()
    assert second("restore", str(file)).code == 0
    assert lock.read_text() == text


def test_another_file_stays_unless_it_is_to_be_replaced(
    first: Controller, second: Controller, file: Path
) -> None:
    first("backup", str(file))
    mine = second.keys / "node-1/chat"
    mine.parent.mkdir(parents=True)
    mine.write_text("sk-other\n")
    said = second("restore", str(file))
    assert said.code == 1
    assert f"keys/node-1/chat: {mine} is another file, and stays" in said.err
    assert mine.read_text() == "sk-other\n"
    assert (second.keys / "gw/gateway-tiny-glm-moe").read_text() == "sk-client\n"
    said = second("restore", str(file), "--replace")
    assert (said.code, said.err) == (0, "")
    assert mine.read_text() == f"{KEY}\n"
    assert mine.with_name("chat.before-restore").read_text() == "sk-other\n"


def test_files_of_hosts_that_no_inventory_names_are_told(
    first: Controller, second: Controller, file: Path
) -> None:
    first("backup", str(file))
    second.enter()
    site = second.corral.root / "inventories/site.py"
    site.write_text(site.read_text().replace('("node-1"', '("node-7"'))
    said = second.corral("restore", str(file))
    assert said.code == 1
    assert "no place here for 2 files (node-1)" in said.err
    assert not list(second.home.rglob("node-1"))


@pytest.mark.parametrize("cut", ["document", "middle", "byte"])
def test_a_damaged_backup_restores_nothing(
    first: Controller, second: Controller, file: Path, cut: str
) -> None:
    first("backup", str(file))
    data = bytearray(file.read_bytes())
    at = data.index(KEY.encode())
    if cut == "byte":
        data[at] ^= 1
    end = {"document": 700, "middle": at, "byte": None}[cut]
    file.write_bytes(data[:end])
    said = second("restore", str(file))
    assert said.code == 1
    assert "Traceback" not in said.err
    assert str(file) in said.err
    assert second.files() == {}


def test_a_backup_writes_nowhere_but_where_the_inventory_says(
    second: Controller, file: Path
) -> None:
    hostile(file, "keys/node-1/../../../evil")
    assert "backup.json" in second("restore", str(file)).err
    hostile(file, "bin/evil")
    said = second("restore", str(file))
    assert "no place here for 1 file " in said.err
    assert second.files() == {}


def hostile(path: Path, name: str) -> None:
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    named = {"name": name, "size_bytes": 1, "sha256": digest}
    document = json.dumps({"at": "now", "by": "x", "files": [named]}).encode()
    with tarfile.open(path, "w") as bundle:
        for one, content in ((DOCUMENT, document), (name, b"x")):
            entry = tarfile.TarInfo(one)
            entry.size = len(content)
            bundle.addfile(entry, io.BytesIO(content))


def test_a_full_disk_leaves_the_backup_of_before(
    first: Controller, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first("backup", str(file))
    before = file.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    said = first("backup", str(file))
    assert "No space left on device" in said.err
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.glob(".the.backup*")] == []


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    return tmp_path / "identity"


def test_an_encrypted_backup_needs_the_key_of_a_recipient(
    first: Controller, second: Controller, file: Path, identity: Path, tmp_path: Path
) -> None:
    recipient = sealing.identity(identity)
    said = first("backup", str(file), "--recipient", recipient)
    assert (said.code, said.err) == (0, "")
    assert KEY.encode() not in file.read_bytes()
    said = second("restore", str(file))
    assert "or add --identity FILE" in said.err
    wrong = tmp_path / "wrong"
    sealing.identity(wrong)
    said = second("restore", str(file), "--identity", str(wrong))
    assert "no identity matched" in said.err
    assert second.files() == {}
    said = second("restore", str(file), "--identity", str(identity))
    assert (said.code, said.err) == (0, "")
    assert (second.keys / "node-1/chat").read_text() == f"{KEY}\n"


def test_a_recipient_that_is_none_writes_no_file(first: Controller, file: Path) -> None:
    said = first("backup", str(file), "--recipient", "me")
    assert (said.code, 'unknown recipient type: "me"' in said.err) == (1, True)
    assert not file.exists()


def test_a_machine_without_age_is_told_to_install_it(
    first: Controller, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "ssh-keygen").symlink_to("/usr/bin/ssh-keygen")
    monkeypatch.setenv("PATH", str(programs))
    said = first("backup", str(file), "--recipient", "age1me")
    assert "apt install age" in said.err
    assert not file.exists()
