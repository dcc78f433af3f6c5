"""corral.lock: stale entries, missing entries, stable bytes, damage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from corral.catalog.entries import Catalog
from corral.errors import CorralError
from corral.lock.lock_file import (
    Lock,
    Wanted,
    locked_shards,
    read_lock,
    stale,
    wanted_by,
    write_lock,
)
from tests.samples import CHAT, EXAMPLES, LONG, catalog, host, lock

WANTED = Wanted(engines=frozenset({"llama.cpp"}), quants=frozenset({("small", "Q8_0")}))


def with_engine(**changes: Any) -> Catalog:
    known = catalog()
    engine = known.engines["llama.cpp"].model_copy(update=changes)
    return known.model_copy(update={"engines": {"llama.cpp": engine}})


def with_model(**changes: Any) -> Catalog:
    known = catalog()
    data = {**known.models["small"].model_dump(), **changes}
    model = type(known.models["small"]).model_validate(data)
    return known.model_copy(update={"models": {"small": model}})


def test_a_lock_that_agrees_is_not_stale() -> None:
    assert stale(lock(), catalog(), WANTED) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (with_engine(commit="b7777"), ("llama.cpp", "b7777")),
        (with_model(repo="corral-lab/Other"), ("small", "corral-lab/Other@main")),
        (with_model(revision="v2"), ("small", "@v2")),
        (with_model(quants={"Q8_0": {"files": "other/*.gguf"}}), ("small", "other/*.gguf")),
    ],
    ids=["engine commit", "repository", "revision", "pattern"],
)
def test_a_stale_entry_tells_what_changed(changed: Catalog, said: tuple[str, ...]) -> None:
    (problem,) = stale(lock(), changed, WANTED)
    assert "stale" in problem
    assert all(word in problem for word in said)


def test_each_missing_entry_is_named() -> None:
    problems = stale(Lock(), catalog(), WANTED)
    assert len(problems) == 2
    assert "engine llama.cpp" in problems[0]
    assert "model small, quant Q8_0" in problems[1]


def test_what_no_instance_uses_may_be_missing_or_stale() -> None:
    changed = with_model(revision="v2")
    assert stale(lock(), changed, Wanted(engines=frozenset(), quants=frozenset())) == []


def test_a_stale_entry_is_refused_with_place_and_command() -> None:
    with pytest.raises(CorralError) as caught:
        locked_shards(lock(), with_model(revision="v2"), "small", "Q8_0", where="lab-1/chat")
    assert caught.value.where == "lab-1/chat"
    assert "corral lock" in caught.value.next_step


def test_hosts_want_what_their_instances_name() -> None:
    hosts = [host(CHAT, {**LONG, "quant": "F16"}), host(CHAT, name="lab-2")]
    wanted = wanted_by(hosts, catalog())
    assert wanted.engines == {"llama.cpp"}
    assert wanted.quants == {("small", "Q8_0"), ("small", "F16")}


def test_write_read_write_gives_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "corral.lock"
    write_lock(path, lock())
    first = path.read_bytes()
    again = read_lock(path)
    assert again == lock()
    write_lock(path, again)
    assert path.read_bytes() == first
    assert [entry.name for entry in tmp_path.iterdir()] == ["corral.lock"]


def test_bytes_do_not_depend_on_the_order_of_entries(tmp_path: Path) -> None:
    backwards = json.loads(lock().model_dump_json())
    quants = backwards["models"]["small"]["quants"]
    backwards["models"]["small"]["quants"] = dict(sorted(quants.items(), reverse=True))
    write_lock(tmp_path / "a", lock())
    write_lock(tmp_path / "b", Lock.model_validate(backwards))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_committed_lock_is_as_corral_would_write_it(tmp_path: Path) -> None:
    write_lock(tmp_path / "corral.lock", read_lock(EXAMPLES / "corral.lock"))
    assert (tmp_path / "corral.lock").read_bytes() == (EXAMPLES / "corral.lock").read_bytes()


def test_an_absent_file_is_an_empty_lock(tmp_path: Path) -> None:
    assert read_lock(tmp_path / "corral.lock") == Lock()


@pytest.mark.parametrize("damage", [b"", b"{", b"<<<<<<< HEAD\n{}", b"\xff\xfe", b"[]"])
def test_a_damaged_file_is_named_with_the_next_step(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "corral.lock"
    path.write_bytes(damage)
    with pytest.raises(CorralError) as caught:
        read_lock(path)
    assert caught.value.where == "corral.lock"
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"sha256": "1', '"sha256": "x', "sha256"),
        ('"size_bytes": 3221225472', '"size_bytes": 0', "size_bytes"),
        ('"revision": "ab', '"revision": "main', "revision"),
        ('"requested": "main"', '"wanted": "main"', 'unknown key "models.small.wanted"'),
        ('"version": 1', '"version": 2', "version"),
    ],
)
def test_a_value_that_cannot_be_names_its_key(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    path = tmp_path / "corral.lock"
    write_lock(path, lock())
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(CorralError) as caught:
        read_lock(path)
    assert said in caught.value.what
    assert "corral lock" in caught.value.next_step
