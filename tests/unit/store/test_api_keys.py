"""The api-key store: made private, kept, checked, never shown."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from rich.pretty import pretty_repr

from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.paths import default_archives_folder, default_keys_folder
from corral.store.api_keys import KeyFile, ensure_keys, key_path, keys_in, read_keys
from tests.samples import CHAT, host

KEY = "canary-0123456789-abcdefghij"
OTHER = "second-0123456789-abcdefghij"


@pytest.fixture
def owner(tmp_path: Path) -> Host:
    """A host whose keys are kept in a store that is not there yet."""
    return host(CHAT, keys_folder=str(tmp_path / "store"))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def write(folder: Path, content: bytes) -> Path:
    path = folder / "keys"
    path.write_bytes(content)
    return path


def test_a_first_use_makes_one_private_key(owner: Host) -> None:
    made = ensure_keys(owner, "chat")
    path = key_path(owner, "chat")
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["chat"]
    (key,) = keys_in(made.text)
    assert len(key) >= 32
    assert made.first == key


def test_a_second_use_changes_nothing(owner: Host) -> None:
    first = ensure_keys(owner, "chat")
    assert ensure_keys(owner, "chat").digest == first.digest
    assert ensure_keys(owner, "chat").text == first.text


def test_each_instance_has_its_own_key(owner: Host) -> None:
    assert ensure_keys(owner, "chat").first != ensure_keys(owner, "long").first


def test_many_at_once_agree_on_one_key(owner: Host) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: ensure_keys(owner, "chat").first, range(16)))
    assert len(set(found)) == 1
    assert len(list(key_path(owner, "chat").parent.iterdir())) == 1


def test_the_store_is_outside_the_repository_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert key_path(host(CHAT), "chat") == tmp_path / ".config/corral/keys/lab-1/chat"


def test_the_store_is_where_it_was_also_for_who_names_another_folder_of_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home, settings = tmp_path / "home", tmp_path / "settings"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(settings))
    named, before = settings / "corral/keys", home / ".config/corral/keys"
    assert default_keys_folder() == named
    before.mkdir(parents=True)
    assert default_keys_folder() == before, "the keys that servers use lie there"
    named.mkdir(parents=True)
    assert default_keys_folder() == named
    monkeypatch.setenv("XDG_CONFIG_HOME", "not/absolute")
    assert default_keys_folder() == before


def test_archives_are_where_they_were_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert default_archives_folder() == tmp_path / "data/corral/engines"
    (tmp_path / ".local/share/corral/engines").mkdir(parents=True)
    assert default_archives_folder() == tmp_path / ".local/share/corral/engines"


def test_comments_blank_lines_and_several_keys_are_allowed(tmp_path: Path) -> None:
    text = f"# for the app\n{KEY}\n\n# for the batch jobs\n{OTHER}\n"
    found = read_keys(write(tmp_path, text.encode()))
    assert found.text == f"{KEY}\n{OTHER}\n", "ik_llama.cpp takes a comment for a key"
    assert found.first == KEY


def test_a_missing_last_line_end_makes_no_difference(tmp_path: Path) -> None:
    without = read_keys(write(tmp_path, KEY.encode())).digest
    assert read_keys(write(tmp_path, f"{KEY}\n".encode())).digest == without


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no key"),
        (b"\n\n", "no key"),
        (b"# only\n# comments\n", "no key"),
        (f"{KEY}\r\n".encode(), "CRLF"),
        (f"# a comment\r\n{KEY}\n".encode(), "CRLF"),
        (f" {KEY}\n".encode(), "line 1 has white space"),
        (f"# x\n{KEY} \n".encode(), "line 2 has white space"),
        (f"{KEY}\t\n".encode(), "white space"),
        (f"{KEY} {OTHER}\n".encode(), "white space"),
        (f"{KEY}\n \n".encode(), "line 2 has white space"),
        (b"short\n", "line 1 is a key of fewer than 20"),
        (f"{KEY}\nshort\n".encode(), "line 2"),
        (b"\xff\xfe\x00", "not text"),
    ],
)
def test_a_file_that_the_server_would_misread_is_refused(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(CorralError) as caught:
        read_keys(path)
    assert caught.value.where == str(path)
    assert said in caught.value.what
    assert str(path) in caught.value.next_step
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("text", [f"{KEY}\x00\n", f"\ufeff{KEY}\n", f"{KEY}\u00e9\n"])
def test_a_key_that_no_http_header_can_carry_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(CorralError, match="keys"):
        read_keys(write(tmp_path, text.encode()))


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorralError) as caught:
        read_keys(tmp_path)
    assert caught.value.where == str(tmp_path)


def test_a_refused_file_is_left_as_it_is(owner: Host) -> None:
    path = key_path(owner, "chat")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    with pytest.raises(CorralError):
        ensure_keys(owner, "chat")
    assert path.read_bytes() == b""


def test_no_plain_way_of_printing_shows_a_key() -> None:
    secret = KeyFile(path="/keys/chat", text=f"{KEY}\n")
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r}", repr({"a": [secret]})]
    assert not [text for text in shown if KEY in text]


def test_richs_way_of_printing_shows_no_key() -> None:
    assert KEY not in pretty_repr(KeyFile(path="/keys/chat", text=f"{KEY}\n"))
