"""What is locked stays locked: a branch that moved changes nothing until it is asked for."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from corral.catalog.entries import Catalog, Engine, Model
from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.lock.lock_file import Lock, LockedModel
from corral.lock.moves import moves
from corral.lock.resolve import resolve
from lab import hub
from tests.samples import CHAT, REPO, catalog, host

pytestmark = pytest.mark.usefixtures("every_commit_is_there")

Q8, F16 = "Q8_0/Small-Q8_0.gguf", "F16/Small-F16.gguf"


@dataclass
class Upstream:
    """A hub with one repository, locked once; ``said``: the notes of the last lock."""

    root: Path
    url: str
    lock: Lock = Lock()
    catalog: Catalog = field(default_factory=catalog)
    said: list[str] = field(default_factory=list)

    def put(self, path: str, content: bytes, revision: str = "main") -> None:
        file = self.root / "repos" / REPO / revision / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def keep(self, revision: str) -> None:
        """A label that keeps what main has now, as a hub keeps its history."""
        folder = self.root / "repos" / REPO
        shutil.copytree(folder / "main", folder / revision)

    def change(self, **changes: Any) -> None:
        """Change the catalog's model."""
        model = Model.model_validate({**self.catalog.models["small"].model_dump(), **changes})
        self.catalog = self.catalog.model_copy(update={"models": {"small": model}})

    @property
    def hosts(self) -> list[Host]:
        return [host(CHAT, hub_url=self.url)]

    def resolved(self, *update: str) -> Lock:
        self.said.clear()
        command = "corral lock inventories/site.py"
        self.lock = resolve(
            self.lock, self.catalog, self.hosts,
            update=update, note=self.said.append, command=command,
        )  # fmt: skip
        return self.lock

    @property
    def model(self) -> LockedModel:
        return self.lock.models["small"]


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[Upstream]:
    with hub.running(tmp_path, log=io.StringIO()) as url:
        made = Upstream(tmp_path, url)
        for path in (Q8, F16, "README.md"):
            made.put(path, path.encode())
        made.resolved()
        made.keep("first")
        yield made


def test_an_edited_readme_moves_nothing(upstream: Upstream) -> None:
    before = upstream.lock
    upstream.put("README.md", b"edited")
    assert upstream.resolved() == before
    (said,) = upstream.said
    assert "with the same files" in said


def test_other_weights_are_taken_when_they_are_asked_for(upstream: Upstream) -> None:
    before = upstream.lock
    upstream.put(Q8, b"uploaded again")
    assert upstream.resolved() == before
    (said,) = upstream.said
    assert "with other files of Q8_0 (14 bytes)" in said
    assert "`corral lock inventories/site.py --update small`" in said
    new = upstream.resolved("small")
    assert new.models["small"].revision != before.models["small"].revision
    assert upstream.said == []
    (sentence,) = moves(before, new, upstream.catalog, upstream.hosts)
    old_at, new_at = (one.models["small"].revision[:12] for one in (before, new))
    assert f"{old_at} ({REPO}@main) -> {new_at} ({REPO}@main)" in sentence
    assert "to fetch: lab-1 14 bytes; a deploy restarts lab-1/chat" in sentence


def test_a_revision_that_is_asked_for_is_taken_with_the_same_files(upstream: Upstream) -> None:
    before = upstream.lock
    upstream.put("README.md", b"edited")
    new = upstream.resolved("small")
    assert new.models["small"].revision != before.models["small"].revision
    (sentence,) = moves(before, new, upstream.catalog, upstream.hosts)
    assert "to fetch: lab-1 nothing; a deploy restarts lab-1/chat" in sentence


def test_a_new_quant_is_taken_from_the_locked_revision(upstream: Upstream) -> None:
    upstream.change(quants={"Q8_0": {"files": "Q8_0/*.gguf"}})
    before = upstream.resolved().models["small"]
    assert set(before.quants) == {"Q8_0"}
    upstream.put("README.md", b"edited")
    upstream.put(F16, b"uploaded again")
    upstream.change(quants={q: {"files": f"{q}/*.gguf"} for q in ("Q8_0", "F16")})
    upstream.resolved()
    assert upstream.model.revision == before.revision
    (half,) = upstream.model.quants["F16"]
    assert half.size_bytes == len(F16)


def test_a_quant_that_the_locked_revision_lacks_is_asked_for(upstream: Upstream) -> None:
    before = upstream.lock
    upstream.put("Q4_0/Small-Q4_0.gguf", b"new")
    upstream.change(quants={q: {"files": f"{q}/*.gguf"} for q in ("Q8_0", "Q4_0")})
    with pytest.raises(CorralError, match="no file that matches Q4_0") as caught:
        upstream.resolved()
    assert caught.value.next_step == "`corral lock inventories/site.py --update small`"
    assert upstream.lock == before
    assert "Q4_0" in upstream.resolved("small").models["small"].quants


def test_a_new_quant_that_is_nowhere_is_a_mistake_of_the_catalog(upstream: Upstream) -> None:
    upstream.change(quants={q: {"files": f"{q}/*.gguf"} for q in ("Q8_0", "Q9_0")})
    with pytest.raises(CorralError, match="no file that matches Q9_0") as caught:
        upstream.resolved()
    assert caught.value.where == "catalog/models/small.toml: quants.Q9_0.files"
    assert caught.value.next_step == "fix the pattern"
    upstream.url = "http://127.0.0.1:9"
    with pytest.raises(CorralError, match="does not answer") as caught:
        upstream.resolved()
    assert "check that the hub can be reached" in caught.value.next_step


def test_another_tag_is_taken_unless_it_has_the_same_files(upstream: Upstream) -> None:
    before = upstream.model
    upstream.keep("v2")
    upstream.put("README.md", b"of v2", "v2")
    upstream.change(revision="v2")
    upstream.resolved()
    assert (upstream.model.revision, upstream.model.requested) == (before.revision, "v2")
    upstream.keep("v3")
    upstream.put(Q8, b"of v3", "v3")
    upstream.change(revision="v3")
    upstream.resolved()
    assert upstream.model.revision != before.revision
    assert upstream.model.requested == "v3"


def test_a_commit_in_the_catalog_is_the_revision(upstream: Upstream) -> None:
    upstream.put("README.md", b"edited")
    edited = upstream.resolved("small").models["small"].revision
    upstream.lock = Lock()
    upstream.change(revision="first")
    assert upstream.resolved().models["small"].revision != edited
    upstream.change(revision=edited)
    assert upstream.resolved().models["small"].revision == edited


def test_another_repository_is_taken(upstream: Upstream) -> None:
    folder = upstream.root / "repos" / REPO
    shutil.copytree(folder, folder.with_name("Other"))
    (folder.with_name("Other") / "main/README.md").write_bytes(b"other")
    before = upstream.model
    upstream.change(repo=f"{REPO.split('/')[0]}/Other")
    upstream.resolved()
    assert upstream.model.repo.endswith("/Other")
    assert upstream.model.revision != before.revision


def test_a_hub_that_is_down_changes_nothing(upstream: Upstream) -> None:
    before, upstream.url = upstream.lock, "http://127.0.0.1:9"
    assert upstream.resolved() == before
    (said,) = upstream.said
    assert "unchecked" in said
    assert "http://127.0.0.1:9 does not answer" in said


def test_a_quant_that_left_the_catalog_leaves_the_lock(upstream: Upstream) -> None:
    before = upstream.lock
    upstream.change(quants={"Q8_0": {"files": "Q8_0/*.gguf"}})
    new = upstream.resolved()
    assert set(new.models["small"].patterns) == set(new.models["small"].quants) == {"Q8_0"}
    (sentence,) = moves(before, new, upstream.catalog, upstream.hosts)
    assert "F16 removed; to fetch: lab-1 nothing" in sentence


def test_a_branch_of_an_engine_stays_where_it_is_locked(upstream: Upstream, tmp_path: Path) -> None:
    source = tmp_path / "engine"

    def commit() -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
        words = [*identity, "commit", "--quiet", "--allow-empty", "--message=one"]
        subprocess.run(["git", "-C", source, *words], check=True)
        head = ["git", "-C", str(source), "rev-parse", "HEAD"]
        return subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()

    subprocess.run(["git", "init", "--quiet", "--initial-branch=master", source], check=True)
    first = commit()
    given = {"repository": str(source), "commit": "master"}
    engine = Engine.model_validate({**catalog().engines["llama.cpp"].model_dump(), **given})
    upstream.catalog = upstream.catalog.model_copy(update={"engines": {"llama.cpp": engine}})
    assert upstream.resolved().engines["llama.cpp"].commit == first
    second, before = commit(), upstream.lock
    assert upstream.resolved() == before
    (said,) = upstream.said
    assert f"engine llama.cpp stays at {first[:12]}: master is now {second[:12]}" in said
    assert "--update llama.cpp`" in said
    new = upstream.resolved("llama.cpp")
    assert new.engines["llama.cpp"].commit == second
    (sentence,) = moves(before, new, upstream.catalog, upstream.hosts)
    assert f"{first[:12]} (master) -> {second[:12]} (master); a new release" in sentence
    assert "restarts lab-1/chat" in sentence
    shutil.rmtree(source)
    assert upstream.resolved() == new
    assert "unchecked" in upstream.said[0]
