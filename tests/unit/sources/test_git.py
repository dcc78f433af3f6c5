"""`corral lock` asks those git servers for a commit that builds will fetch it from."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.catalog.entries import Catalog, Engine
from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.lock.lock_file import Lock
from corral.lock.resolve import resolve
from corral.sources.git import pack_commit
from lab import hub
from tests.samples import CHAT, LONG, REPO, catalog, host
from tests.unit.helper_hosts import git
from tests.unit.small_disks import small_disk

ABSENT = "c0" * 20


def commit(folder: Path, text: str) -> str:
    (folder / "file").write_text(text)
    git(folder, "add", "file")
    git(folder, "commit", "--quiet", f"--message={text}")
    return git(folder, "rev-parse", "HEAD")


def repository(folder: Path, *texts: str) -> Path:
    """With a commit for each text."""
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=master")
    for text in texts:
        commit(folder, text)
    return folder


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """A repository with two commits; the first is no tag's and no branch's head."""
    return repository(tmp_path / "public", "one", "two")


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """One that is behind the public one, and has a commit more."""
    return repository(tmp_path / "mirror", "a patch of our own")


@pytest.fixture(scope="module")
def hub_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("hub")
    for path in ("Q8_0/Small-Q8_0.gguf", "F16/Small-F16.gguf"):
        file = folder / "repos" / REPO / "main" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"weights")
    with hub.running(folder, log=io.StringIO()) as address:
        yield address


def known(repository: Path, reference: str) -> Catalog:
    made = catalog()
    engine = made.engines["llama.cpp"].model_dump()
    changed = Engine.model_validate({**engine, "repository": str(repository), "commit": reference})
    return made.model_copy(update={"engines": {"llama.cpp": changed}})


def locked(repository: Path, reference: str, *hosts: Host) -> str:
    return resolve(Lock(), known(repository, reference), hosts).engines["llama.cpp"].commit


def mirrored(hub_url: str, mirror: Path, name: str = "lab-1") -> Host:
    return host(CHAT, name=name, hub_url=hub_url, engine_sources={"llama.cpp": str(mirror)})


@pytest.mark.parametrize("back", [0, 1])
def test_a_pinned_commit_that_is_there_is_locked(public: Path, hub_url: str, back: int) -> None:
    wanted = git(public, "rev-parse", f"HEAD~{back}")
    assert locked(public, wanted, host(CHAT, hub_url=hub_url)) == wanted


def test_a_pinned_commit_that_is_nowhere_is_refused(public: Path, hub_url: str) -> None:
    with pytest.raises(CorralError, match=f"{public} has no commit {ABSENT}") as caught:
        locked(public, ABSENT, host(CHAT, hub_url=hub_url))
    assert caught.value.where == "catalog/engines/llama.cpp.toml: commit"
    assert "warning" not in str(caught.value)


def test_a_server_that_does_not_answer_is_none_without_the_commit(
    tmp_path: Path, hub_url: str
) -> None:
    with pytest.raises(CorralError, match="cannot fetch commit") as caught:
        locked(tmp_path / "nowhere", ABSENT, host(CHAT, hub_url=hub_url))
    assert "engine_sources" in caught.value.next_step


def test_a_commit_is_packed_in_a_repository_of_its_own_or_not_at_all(
    public: Path, tmp_path: Path
) -> None:
    around = repository(tmp_path / "around", "ours")
    before = git(around, "count-objects", "-v")
    head = git(public, "rev-parse", "HEAD")
    with small_disk(around / "bundle") as folder:
        with pytest.raises(CorralError, match="cannot make a repository in .*git") as caught:
            pack_commit(public.as_uri(), head, folder / "p", folder / "git", where="engine x")
        assert list(folder.iterdir()) == []
    assert "has room" in caught.value.next_step
    assert git(around, "count-objects", "-v") == before
    assert not (around / ".git/shallow").exists()


def test_a_named_mirror_is_asked_and_the_public_repository_is_not(
    tmp_path: Path, mirror: Path, hub_url: str
) -> None:
    head = git(mirror, "rev-parse", "HEAD")
    users = mirrored(hub_url, mirror)
    assert locked(tmp_path / "unreachable", "master", users) == head
    assert locked(tmp_path / "unreachable", head, users) == head


def test_a_commit_that_a_mirror_lacks_is_refused(public: Path, mirror: Path, hub_url: str) -> None:
    head = git(public, "rev-parse", "HEAD")
    with pytest.raises(CorralError, match=f"{mirror} has no commit {head}"):
        locked(public, head, host(LONG, name="a", hub_url=hub_url), mirrored(hub_url, mirror))


def test_sources_that_disagree_on_a_branch_are_named(
    public: Path, mirror: Path, hub_url: str
) -> None:
    with pytest.raises(CorralError, match="master is not the same commit everywhere") as caught:
        locked(public, "master", host(LONG, name="a", hub_url=hub_url), mirrored(hub_url, mirror))
    assert str(public) in caught.value.what
    assert str(mirror) in caught.value.what
