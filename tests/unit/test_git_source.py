"""`corral lock` asks those git servers for a commit that builds will fetch it from."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.catalog import Catalog, Engine
from corral.errors import CorralError
from corral.inventory import Host
from corral.lockfile import Lock
from corral.resolve import resolve
from lab import hub
from tests.samples import CHAT, LONG, REPO, catalog, host

IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@example.com")
ABSENT = "c0" * 20


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def commit(folder: Path, text: str) -> str:
    (folder / "file").write_text(text)
    git(folder, "add", "file")
    git(folder, *IDENTITY, "commit", "--quiet", f"--message={text}")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """A repository with two commits; the first is no tag's and no branch's head."""
    folder = tmp_path / "public"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=master")
    commit(folder, "one")
    commit(folder, "two")
    return folder


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """One that is behind the public one, and has a commit more."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=master")
    commit(folder, "a patch of our own")
    return folder


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
    with pytest.raises(CorralError, match="does not say whether it has") as caught:
        locked(tmp_path / "nowhere", ABSENT, host(CHAT, hub_url=hub_url))
    assert "engine_sources" in caught.value.next_step


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
    with pytest.raises(CorralError, match="master is not the same everywhere") as caught:
        locked(public, "master", host(LONG, name="a", hub_url=hub_url), mirrored(hub_url, mirror))
    assert str(public) in caught.value.what
    assert str(mirror) in caught.value.what
