"""Keys that are encrypted in the fleet's repository, by age or by sops, are keys like others."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.keys import changes
from corral.keys.changes import Subject
from corral.store.api_keys import (
    ensure_keys,
    entries_of,
    find_keys,
    keep_keys,
    key_path,
    keys_in,
    new_keys,
    stored_keys,
)
from corral.store.sealed import RECIPIENTS
from tests import sealing
from tests.samples import CHAT, host

pytestmark = pytest.mark.slow

KEY = "sk-chat-" + "a" * 24


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store in a repository whose recipient is this operator."""
    monkeypatch.setenv("PATH", sealing.install(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    identity = tmp_path / "config/corral/age-identity.txt"
    identity.parent.mkdir(parents=True)
    recipient = sealing.identity(identity)
    made = tmp_path / "keys"
    made.mkdir()
    (made / RECIPIENTS).write_text(f"# operators\n{recipient}\n")
    return made


@pytest.fixture
def owner(store: Path) -> Host:
    return host(CHAT, keys_folder=str(store))


def plain_texts(folder: Path) -> str:
    return "".join(p.read_text(errors="replace") for p in folder.rglob("*") if p.is_file())


def test_a_new_key_is_written_encrypted(owner: Host, store: Path) -> None:
    made = ensure_keys(owner, "chat")
    sealed = key_path(owner, "chat").with_name("chat.age")
    assert [p.name for p in sealed.parent.iterdir()] == ["chat.age"]
    assert sealed.stat().st_mode & 0o777 == 0o600
    assert made.first not in plain_texts(store)
    assert ensure_keys(owner, "chat") == made == find_keys(owner, "chat")


def test_changes_stay_encrypted_and_what_is_replaced_too(owner: Host, store: Path) -> None:
    first = ensure_keys(owner, "chat").first
    changes.begin([Subject(host=owner, name="chat")])
    second = stored_keys(owner, "chat").first
    assert keys_in(stored_keys(owner, "chat").text) == [second, first]
    assert [bool(entry.replaced) for entry in entries_of(owner, "chat")] == [False, True]
    new_keys(owner, "chat", replace=True)
    third = stored_keys(owner, "chat").first
    assert len({first, second, third}) == 3
    assert not any(key in plain_texts(store) for key in (first, second, third))
    with pytest.raises(CorralError, match="other keys for it"):
        keep_keys(owner, "chat", [KEY])


def test_a_file_of_sops_is_read_and_written_by_sops(
    owner: Host, store: Path, tmp_path: Path
) -> None:
    (store / RECIPIENTS).unlink()
    path = key_path(owner, "chat").with_name("chat.sops")
    path.parent.mkdir()
    path.write_text(sealing.sops_file(f"{KEY}\n"))
    found = find_keys(owner, "chat")
    assert found
    assert found.first == KEY
    changes.begin([Subject(host=owner, name="chat")])
    assert keys_in(stored_keys(owner, "chat").text)[1:] == [KEY]
    assert path.read_text().startswith('{"data"')
    assert KEY not in plain_texts(tmp_path / "keys")


def test_a_sops_that_refuses_leaves_the_file(owner: Host) -> None:
    unruly = owner.model_copy(update={"name": "unruly"})
    path = key_path(unruly, "chat").with_name("chat.sops")
    path.parent.mkdir()
    text = sealing.sops_file(f"{KEY}\n")
    path.write_text(text)
    with pytest.raises(CorralError, match="no matching creation rules"):
        changes.begin([Subject(host=unruly, name="chat")])
    assert path.read_text() == text


def test_an_operator_without_the_identity_is_told(owner: Host, tmp_path: Path) -> None:
    key_path(owner, "chat").parent.mkdir()
    ensure_keys(owner, "chat")
    sealing.identity(tmp_path / "config/corral/age-identity.txt")
    path = key_path(owner, "chat").with_name("chat.age")
    # Another file, as what was opened once in a command is kept.
    path.rename(path.with_name("long.age"))
    with pytest.raises(CorralError, match="no identity matched"):
        find_keys(owner, "long")
    (tmp_path / "config/corral/age-identity.txt").unlink()
    with pytest.raises(CorralError, match="is encrypted with age") as caught:
        find_keys(owner, "long")
    assert "age-identity.txt" in caught.value.next_step


def test_a_plain_store_stays_plain_and_an_instance_may_be_called_so(
    owner: Host, store: Path
) -> None:
    (store / RECIPIENTS).unlink()
    made = ensure_keys(owner, "chat.age")
    assert key_path(owner, "chat.age").read_text().endswith(f"{made.first}\n")
    assert find_keys(owner, "chat") is None
    assert find_keys(owner, "chat.age") == made


def test_a_store_without_recipients_is_told(owner: Host, store: Path) -> None:
    (store / RECIPIENTS).write_text("# nobody\n")
    with pytest.raises(CorralError, match="names no recipient"):
        ensure_keys(owner, "chat")
    assert not key_path(owner, "chat").with_name("chat.age").exists()
