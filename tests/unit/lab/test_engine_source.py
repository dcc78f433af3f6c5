"""The engines' sources as git repositories: made once, the same everywhere, bumped by a file."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from corral.catalog.entries import load_catalog
from corral.errors import CorralError
from lab import engine_source, ik_source
from lab.engine_source import SOURCES, Source
from lab.layout import Layout
from lab.source_tools import Distribution, bare_repository
from tests.samples import EXAMPLES

ENGINE, FILE = "an-engine", "server/server.cpp"
CATALOG = load_catalog(EXAMPLES / "catalog")
# Of the tree below, by the lab's author at the lab's time.
COMMIT = "fbcf266bb1ef7a8685729b7bf98f7688066b347a"


def write_tree(folder: Path) -> Path:
    """Sources with a program, and a file that their own .gitignore leaves out."""
    (folder / "server").mkdir(parents=True)
    (folder / FILE).write_text("int main() {}\n")
    (folder / ".gitignore").write_text("build*\n")
    (folder / "build-info.cpp.in").write_text("int number = @BUILD_NUMBER@;\r\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    return folder


def git(repository: Path, *words: str) -> str:
    command = ["git", f"--git-dir={repository}", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def committed(folder: Path) -> Path:
    """A repository of that tree, as a source's ``make`` returns it."""
    repository = bare_repository(folder / "bare.git")
    ik_source.commit_sources(repository, write_tree(folder / "sources"))
    return repository


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Path], Path]], None]:
    """Let the lab have one engine, whose repository is made by a function."""

    def use(make: Callable[[Path], Path]) -> None:
        monkeypatch.setattr(engine_source, "SOURCES", {ENGINE: Source(COMMIT, FILE, make)})

    return use


def test_a_repository_is_made_once(tmp_path: Path, source: Callable[..., None]) -> None:
    made: list[Path] = []

    def make(folder: Path) -> Path:
        made.append(folder)
        return committed(folder)

    source(make)
    for _ in range(2):
        engine_source.ensure(tmp_path)
    assert len(made) == 1
    assert [path.name for path in tmp_path.iterdir()] == [f"{ENGINE}.git"]


def test_a_repository_is_one_pack_also_one_of_an_earlier_version(
    tmp_path: Path, source: Callable[..., None]
) -> None:
    (tmp_path / "made").mkdir()
    committed(tmp_path / "made").rename(tmp_path / f"{ENGINE}.git")
    source(committed)
    engine_source.ensure(tmp_path)
    counts = git(tmp_path / f"{ENGINE}.git", "count-objects", "-v").splitlines()
    assert {"count: 0", "packs: 1"} <= set(counts)
    assert git(tmp_path / f"{ENGINE}.git", "rev-parse", "master").strip() == COMMIT


def test_two_calls_at_once_make_it_once(tmp_path: Path, source: Callable[..., None]) -> None:
    made: list[Path] = []

    def make(folder: Path) -> Path:
        made.append(folder)
        return committed(folder)

    source(make)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(engine_source.ensure, [tmp_path] * 2))
    assert len(made) == 1


def test_what_a_killed_run_left_is_no_repository(
    tmp_path: Path, source: Callable[..., None]
) -> None:
    (tmp_path / "partial" / "sources").mkdir(parents=True)
    source(committed)
    engine_source.ensure(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{ENGINE}.git"]


def test_a_failure_leaves_no_repository(tmp_path: Path, source: Callable[..., None]) -> None:
    def fail(folder: Path) -> Path:
        committed(folder)
        raise CorralError("lab", "the network is down", "try again")

    source(fail)
    with pytest.raises(CorralError, match="the network is down"):
        engine_source.ensure(tmp_path)
    assert not (tmp_path / f"{ENGINE}.git").exists()


def test_equal_sources_are_the_same_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gitconfig").write_text("[core]\n\tautocrlf = input\n[user]\n\tname = me\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    assert git(committed(tmp_path), "rev-parse", "master").strip() == COMMIT


def test_a_commit_has_also_what_gitignore_leaves_out(tmp_path: Path) -> None:
    listed = git(committed(tmp_path), "ls-tree", "-r", "master")
    assert "build-info.cpp.in" in listed
    assert "100755 blob" in listed


def test_a_bump_is_one_commit_that_moves_the_servers_lines(
    tmp_path: Path, source: Callable[..., None]
) -> None:
    source(committed)
    engine_source.ensure(tmp_path)
    bumped = engine_source.bump(tmp_path, ENGINE)
    repository = tmp_path / f"{ENGINE}.git"
    assert git(repository, "rev-parse", f"{bumped}^", "bump").split() == [COMMIT, bumped]
    changed = git(repository, "diff", "--name-only", COMMIT, bumped).split()
    assert changed == [FILE]
    first, second = git(repository, "show", f"{bumped}:{FILE}").splitlines()
    assert first.startswith("//")
    assert second == "int main() {}"
    assert engine_source.bump(tmp_path, ENGINE) == bumped


def test_sources_that_are_not_the_pinned_ones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def extract(_archive: Path, _member: object, folder: Path) -> Path:
        (folder / "common").mkdir(parents=True)
        return folder

    monkeypatch.setattr(ik_source, "download", lambda _distribution, folder: folder / "x.tar.gz")
    monkeypatch.setattr(ik_source, "extract", extract)
    with pytest.raises(CorralError, match=f"{ik_source.COMMIT} is pinned"):
        ik_source.make(tmp_path)


def test_a_distribution_is_named_as_pip_takes_it() -> None:
    assert Distribution("some-name==1.2", "some_name-1.2.tar.gz", "0" * 64).name == "some-name"


@pytest.mark.parametrize("engine", SOURCES)
def test_a_source_serves_the_commit_of_its_catalog_entry(engine: str) -> None:
    assert CATALOG.engines[engine].commit == SOURCES[engine].commit


def test_the_labs_ik_is_built_as_the_real_one() -> None:
    real, labs = CATALOG.engines["ik_llama.cpp"], CATALOG.engines["lab-ik_llama.cpp"]
    same = {"repository": real.repository, "commit": real.commit}
    assert labs.model_copy(update=same) == real


def test_each_engine_has_a_url_of_the_labs_own() -> None:
    layout = Layout.of(Path("/srv/corral"))
    address = layout.controller_address
    assert engine_source.urls(layout) == {
        "llama.cpp": f"git://{address}/llama.cpp.git",
        "lab-ik_llama.cpp": f"git://{address}/lab-ik_llama.cpp.git",
    }
    assert engine_source.urls(layout)["llama.cpp"] == layout.git_url
