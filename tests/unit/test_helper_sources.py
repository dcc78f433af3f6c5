"""The sources of a build: the commit's and the patches', from a server that may be away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit import helper_hosts as hosts
from tests.unit import release_samples as samples
from tests.unit.helper_hosts import git
from tests.unit.helper_modules import helper_module

sources = helper_module("sources")
HostError = helper_module("tools").HostError

PATCH = """--- a/server.c
+++ b/server.c
@@ -1 +1 @@
-int one;
+int two;
"""


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    return samples.release(tmp_path)


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, spec: dict[str, Any]) -> Path:
    return hosts.repository(tmp_path / "repository", spec)


def test_they_are_the_commit_s_and_nothing_else(spec: dict[str, Any], tmp_path: Path) -> None:
    source = tmp_path / "source"
    for _ in range(2):
        sources.check_out(source, spec)
        assert sorted(path.name for path in source.iterdir()) == [".git", "server.c"]
        assert (source / "server.c").read_text() == "int one;\n"
        (source / "server.c").write_text("changed")
        (source / "left").mkdir()
        (source / ".git" / "index.lock").touch()


def test_another_commit_follows(spec: dict[str, Any], repository: Path, tmp_path: Path) -> None:
    sources.check_out(tmp_path / "source", spec)
    (repository / "server.c").write_text("int bumped;\n")
    git(repository, "commit", "--quiet", "-am", "two")
    spec["commit"] = git(repository, "rev-parse", "HEAD")
    sources.check_out(tmp_path / "source", spec)
    assert (tmp_path / "source" / "server.c").read_text() == "int bumped;\n"


def test_what_was_fetched_needs_no_server(
    spec: dict[str, Any], repository: Path, tmp_path: Path
) -> None:
    sources.check_out(tmp_path / "source", spec)
    repository.rename(tmp_path / "away")
    sources.check_out(tmp_path / "source", spec)


def test_patches_are_applied_once_and_taken_back(spec: dict[str, Any], tmp_path: Path) -> None:
    new = "--- /dev/null\n+++ b/new.c\n@@ -0,0 +1 @@\n+int new;\n"
    patches = [{"name": "1.patch", "text": PATCH}, {"name": "2.patch", "text": new}]
    for _ in range(2):
        sources.check_out(tmp_path / "source", {**spec, "patches": patches})
        assert (tmp_path / "source" / "server.c").read_text() == "int two;\n"
        assert (tmp_path / "source" / "new.c").exists()
    sources.check_out(tmp_path / "source", spec)
    assert (tmp_path / "source" / "server.c").read_text() == "int one;\n"
    assert not (tmp_path / "source" / "new.c").exists()


def test_a_patch_that_does_not_apply_is_told(spec: dict[str, Any], tmp_path: Path) -> None:
    patch = {"name": "bad.patch", "text": PATCH.replace("one", "three")}
    with pytest.raises(HostError, match=r"bad\.patch does not apply.*server\.c.*Next:"):
        sources.check_out(tmp_path / "source", {**spec, "patches": [patch]})


def test_a_commit_that_does_not_exist_is_told(
    spec: dict[str, Any], repository: Path, tmp_path: Path
) -> None:
    spec["commit"] = "d" * 40
    with pytest.raises(HostError, match=f"{repository.as_uri()} has no commit {'d' * 40}"):
        sources.check_out(tmp_path / "source", spec)


def test_a_server_that_is_not_there_is_told(spec: dict[str, Any], tmp_path: Path) -> None:
    spec["source_url"] = "git://127.0.0.1:1/llama.cpp"
    with pytest.raises(HostError, match=f":1/llama.cpp cannot be reached for.*{spec['commit']}"):
        sources.check_out(tmp_path / "source", spec)
