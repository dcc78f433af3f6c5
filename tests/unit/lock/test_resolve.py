"""`corral lock` against the stand-in hub and a git repository on this machine."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corral.catalog.entries import Catalog, Engine, Model
from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.lock.lock_file import Lock, read_lock, stale, wanted_by, write_lock
from corral.lock.resolve import resolve
from lab import hub
from lab.faults import Rule, faults
from tests.samples import CHAT, REPO, catalog, host, lock

FILES = {
    "Q8_0/Small-Q8_0.gguf": b"weights",
    "F16/Small-F16-00002-of-00002.gguf": b"second half",
    "F16/Small-F16-00001-of-00002.gguf": b"first half",
    "README.md": b"not weights",
    "FP8/config.json": b'{"model_type": "glm4_moe"}',
    "FP8/tokenizer.json": b"{}",
    "FP8/generation_config.json": b"",
}


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("every_commit_is_there")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    for path, content in FILES.items():
        file = folder / "repos" / REPO / "main" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def url(root: Path) -> Iterator[str]:
    with hub.running(root, log=io.StringIO()) as address:
        yield address


def with_model(**changes: Any) -> Catalog:
    known = catalog()
    model = Model.model_validate({**known.models["small"].model_dump(), **changes})
    return known.model_copy(update={"models": {"small": model}})


def with_engine(**changes: Any) -> Catalog:
    known = catalog()
    engine = Engine.model_validate({**known.engines["llama.cpp"].model_dump(), **changes})
    return known.model_copy(update={"engines": {"llama.cpp": engine}})


def users(url: str) -> list[Host]:
    return [host(CHAT, hub_url=url)]


def refusal(known: Catalog, url: str) -> CorralError:
    with pytest.raises(CorralError) as caught:
        resolve(Lock(), known, users(url))
    return caught.value


def test_sizes_digests_and_revision_come_from_the_hub(url: str) -> None:
    model = resolve(Lock(), catalog(), users(url)).models["small"]
    assert (model.repo, model.requested, len(model.revision)) == (REPO, "main", 40)
    (shard,) = model.quants["Q8_0"]
    assert shard.path == "Q8_0/Small-Q8_0.gguf"
    assert shard.size_bytes == len(b"weights")
    assert shard.sha256 == hashlib.sha256(b"weights").hexdigest()


def test_shards_come_in_the_order_of_their_numbers(url: str) -> None:
    shards = resolve(Lock(), catalog(), users(url)).models["small"].quants["F16"]
    assert [shard.size_bytes for shard in shards] == [len(b"first half"), len(b"second half")]


WITH_CONFIG = {
    "Q8_0": {"files": "Q8_0/*.gguf", "config": ["FP8/config.json", "FP8/tok*.json"]},
}


def test_files_beside_the_weights_are_locked_by_what_is_in_them(url: str, tmp_path: Path) -> None:
    known = with_model(quants=WITH_CONFIG)
    locked = resolve(Lock(), known, users(url))
    shard, *beside = locked.models["small"].quants["Q8_0"]
    assert shard.kind is None
    assert [(file.path, file.kind) for file in beside] == [
        ("FP8/config.json", "config"),
        ("FP8/tokenizer.json", "config"),
    ]
    for file in beside:
        assert file.size_bytes == len(FILES[file.path])
        assert file.sha256 == hashlib.sha256(FILES[file.path]).hexdigest()
    assert stale(locked, known, wanted_by(users(url), known)) == []
    assert stale(locked, catalog(), wanted_by(users(url), catalog()))
    write_lock(tmp_path / "corral.lock", locked)
    assert read_lock(tmp_path / "corral.lock") == locked


@pytest.mark.parametrize(
    ("pattern", "said"),
    [("FP8/absent*", "no file that matches FP8/absent*"), ("FP8/gen*", "is empty, or larger")],
)
def test_a_file_beside_the_weights_that_cannot_be_locked_is_named(
    url: str, pattern: str, said: str
) -> None:
    quants = {"Q8_0": {"files": "Q8_0/*.gguf", "config": [pattern]}}
    error = refusal(with_model(quants=quants), url)
    assert error.where == "catalog/models/small.toml: quants.Q8_0.config"
    assert said in error.what


def test_the_result_is_current_and_resolving_again_changes_nothing(url: str) -> None:
    first = resolve(Lock(), catalog(), users(url))
    assert stale(first, catalog(), wanted_by(users(url), catalog())) == []
    assert resolve(first, catalog(), users(url)) == first


def test_a_pattern_that_was_widened_since_is_stale(url: str) -> None:
    locked = resolve(Lock(), catalog(), users(url))
    wider = with_model(quants={"Q8_0": {"files": "*.gguf"}})
    assert stale(locked, wider, wanted_by(users(url), wider))


def test_entries_of_other_hosts_stay_and_removed_ones_go() -> None:
    entry = lock().models["small"]
    old = lock().model_copy(update={"models": {"small": entry, "gone": entry}})
    assert resolve(old, catalog(), []).models == {"small": entry}


def test_each_hub_that_hosts_fetch_from_is_asked(url: str, root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "hub")
    with hub.running(tmp_path / "hub", log=io.StringIO()) as mirror:
        both = [*users(url), host(CHAT, name="b", hub_url=mirror)]
        assert resolve(Lock(), catalog(), both) == resolve(Lock(), catalog(), users(url))
    (tmp_path / "hub/repos" / REPO / "main/Q8_0/Small-Q8_0.gguf").write_bytes(b"others")
    for order in (1, -1):
        with (
            hub.running(tmp_path / "hub", log=io.StringIO()) as mirror,
            pytest.raises(
                CorralError, match=f"main of {REPO} is not the same revision everywhere"
            ) as fault,
        ):
            resolve(Lock(), catalog(), [*users(url), host(CHAT, name="b", hub_url=mirror)][::order])
        assert f" at {url}" in fault.value.what
        assert f" at {mirror}" in fault.value.what


def test_an_unknown_repository_is_named(url: str) -> None:
    error = refusal(with_model(repo="corral-lab/Absent"), url)
    assert error.where == "catalog/models/small.toml: repo"
    assert "corral-lab/Absent" in error.what


def test_an_unknown_revision_is_named(url: str) -> None:
    error = refusal(with_model(revision="v9"), url)
    assert error.where == "catalog/models/small.toml: revision"
    assert "v9" in error.what


def test_a_pattern_that_matches_nothing_is_named(url: str) -> None:
    error = refusal(with_model(quants={"Q8_0": {"files": "Q9/*.gguf"}}), url)
    assert error.where == "catalog/models/small.toml: quants.Q8_0.files"
    assert "Q9/*.gguf" in error.what


def test_a_file_without_a_digest_is_refused(url: str) -> None:
    error = refusal(with_model(quants={"Q8_0": {"files": "README.md"}}), url)
    assert "no sha256 for README.md" in error.what


def test_a_hub_that_is_down_is_named() -> None:
    error = refusal(catalog(), "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 does not answer" in error.what
    assert "corral lock" in error.next_step


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Rule(kind="status", match="*", code=429), "answers 429: it limits how often"),
        (Rule(kind="down", match="*"), "does not answer"),
    ],
)
def test_a_hub_that_fails_is_named(
    root: Path, url: str, rule: Rule, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    with faults(root, rule):
        assert f"{url} {said}" in refusal(catalog(), url).what


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with one commit, a branch, and an annotated tag."""
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    for words in (
        ["init", "--quiet", "--initial-branch=master"],
        [*identity, "commit", "--quiet", "--allow-empty", "--message=one"],
        [*identity, "tag", "--annotate", "--message=b1", "b1"],
    ):
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    return tmp_path


@pytest.mark.parametrize("name", ["master", "b1"])
def test_a_branch_or_tag_becomes_the_commit_it_points_to(
    repository: Path, url: str, name: str
) -> None:
    head = subprocess.run(
        ["git", "-C", repository, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    known = with_engine(repository=str(repository), commit=name)
    engine = resolve(Lock(), known, users(url)).engines["llama.cpp"]
    assert (engine.requested, engine.commit) == (name, head)


def test_an_unknown_tag_is_named(repository: Path, url: str) -> None:
    error = refusal(with_engine(repository=str(repository), commit="b2"), url)
    assert error.where == "catalog/engines/llama.cpp.toml: commit"
    assert "b2" in error.what


def test_a_git_server_that_is_down_is_named(url: str) -> None:
    error = refusal(with_engine(repository="git://127.0.0.1:9/x.git", commit="b2"), url)
    assert "git://127.0.0.1:9/x.git" in error.what


def test_a_git_server_that_hangs_is_named(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object, **__: object) -> None:
        raise subprocess.TimeoutExpired("git", 60)

    monkeypatch.setattr("corral.sources.git.subprocess.run", hang)
    assert "git" in refusal(with_engine(commit="b2"), url).what
