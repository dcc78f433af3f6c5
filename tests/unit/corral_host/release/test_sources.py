"""The sources of a build: its commit and patches, from a server that may be unreachable."""

from __future__ import annotations

import os
from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest

from corral.sources.git import pack_commit
from tests.unit import helper_hosts as hosts
from tests.unit import release_samples as samples
from tests.unit.helper_hosts import git
from tests.unit.helper_modules import helper_module
from tests.unit.ranged_server import Served, serving

sources, users = helper_module("release.sources"), helper_module("release.build_user")
HostError = helper_module("system.commands").HostError

PATCH = """--- a/server.c
+++ b/server.c
@@ -1 +1 @@
-int one;
+int two;
"""

# Version 2, no object, and its digest.
PACK_OF_NOTHING = b"PACK" + (2).to_bytes(4, "big") + bytes(4)
PACK_OF_NOTHING += sha1(PACK_OF_NOTHING, usedforsecurity=False).digest()

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("public")]


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    return samples.release(tmp_path)


def check_out(spec: dict[str, Any]) -> Path:
    """Check out like a build; returns the folder."""
    with users.build_home(spec) as home:
        sources.check_out(source(spec), spec, home)
    return source(spec)


def source(spec: dict[str, Any]) -> Path:
    folder: Path = users.work_folder(spec) / users.SOURCE
    return folder


@pytest.fixture(autouse=True)
def repository(tmp_path: Path, spec: dict[str, Any]) -> Path:
    return hosts.repository(tmp_path / "repository", spec)


def test_they_are_the_commit_s_and_nothing_else(spec: dict[str, Any]) -> None:
    for _ in range(2):
        folder = check_out(spec)
        assert sorted(path.name for path in folder.iterdir()) == [".git", "server.c"]
        assert (folder / "server.c").read_text() == "int one;\n"
        (folder / "server.c").write_text("changed")
        (folder / "left").mkdir()
        (folder / ".git" / "index.lock").touch()


def test_another_commit_follows(spec: dict[str, Any], repository: Path) -> None:
    check_out(spec)
    (repository / "server.c").write_text("int bumped;\n")
    git(repository, "commit", "--quiet", "-am", "two")
    spec["commit"] = git(repository, "rev-parse", "HEAD")
    check_out(spec)
    assert (source(spec) / "server.c").read_text() == "int bumped;\n"


def test_what_was_fetched_needs_no_server(
    spec: dict[str, Any], repository: Path, tmp_path: Path
) -> None:
    check_out(spec)
    repository.rename(tmp_path / "away")
    check_out(spec)


def test_patches_are_applied_once_and_taken_back(spec: dict[str, Any]) -> None:
    new = "--- /dev/null\n+++ b/new.c\n@@ -0,0 +1 @@\n+int new;\n"
    patches = [{"name": "1.patch", "text": PATCH}, {"name": "2.patch", "text": new}]
    for _ in range(2):
        check_out(samples.of(spec, patches=patches))
        assert (source(spec) / "server.c").read_text() == "int two;\n"
        assert (source(spec) / "new.c").exists()
    check_out(spec)
    assert (source(spec) / "server.c").read_text() == "int one;\n"
    assert not (source(spec) / "new.c").exists()


def test_a_patch_that_does_not_apply_is_told(spec: dict[str, Any]) -> None:
    patch = {"name": "bad.patch", "text": PATCH.replace("one", "three")}
    with pytest.raises(HostError, match=r"bad\.patch does not apply.*server\.c.*Next:"):
        check_out(samples.of(spec, patches=[patch]))


def test_a_commit_that_does_not_exist_is_told(spec: dict[str, Any], repository: Path) -> None:
    spec["commit"] = "d" * 40
    with pytest.raises(HostError, match=f"{repository.as_uri()} has no commit {'d' * 40}"):
        check_out(spec)


def test_a_server_that_is_not_there_is_told(spec: dict[str, Any]) -> None:
    spec["artifact"]["source_url"] = "git://127.0.0.1:1/llama.cpp"
    with pytest.raises(HostError, match=f":1/llama.cpp cannot be reached for.*{spec['commit']}"):
        check_out(spec)


def test_a_pack_of_a_bundle_is_enough_and_a_cut_one_is_told(
    spec: dict[str, Any], repository: Path, tmp_path: Path
) -> None:
    (repository / "server.c").write_text("int packed;\n")
    git(repository, "commit", "--quiet", "-am", "two")
    spec["commit"] = git(repository, "rev-parse", "HEAD")
    pack = tmp_path / "whole.pack"
    pack_commit(repository.as_uri(), spec["commit"], pack, tmp_path / "git", where="test")
    whole = pack.read_bytes()
    with serving() as server:
        spec["artifact"]["source_url"] = f"{server.url}/x.pack"
        for content in (whole[:-30], PACK_OF_NOTHING):
            server.files["x.pack"] = Served(content, total_bytes=len(content))
            with pytest.raises(HostError, match=r"is not a pack with commit .*bundle verify"):
                check_out(spec)
        server.files["x.pack"] = Served(whole, total_bytes=len(whole))
        folder = check_out(spec)
        assert (folder / "server.c").read_text() == "int packed;\n"
        assert (folder / ".git/shallow").read_text().split() == [spec["commit"]]
    assert check_out(spec) == folder


def test_a_bundle_that_is_not_served_is_told(spec: dict[str, Any]) -> None:
    spec["artifact"]["source_url"] = "http://127.0.0.1:1/x.pack"
    with pytest.raises(HostError, match="cannot be fetched: .*bundle serve"):
        check_out(spec)


def test_a_pack_that_fills_the_disk_is_no_fault_of_the_bundle(
    spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts.on_path(monkeypatch, tmp_path / "path", "aria2c", "exit 9")
    monkeypatch.setattr(sources, "ENVIRONMENT", {**sources.ENVIRONMENT, "PATH": sources.PROGRAMS})
    spec["artifact"]["source_url"] = "http://127.0.0.1:1/x.pack"
    with pytest.raises(HostError, match="disk full"):
        check_out(spec)


def test_root_s_git_never_works_in_the_user_s_tree(
    spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracing = 'echo "$(id -u) $*" >>"$TRACE"; exec /usr/bin/git "$@"'
    trace = tmp_path / "trace"
    trace.touch()
    trace.chmod(0o666)
    hosts.on_path(monkeypatch, tmp_path / "path", "git", tracing)
    environment = {**sources.ENVIRONMENT, "PATH": sources.PROGRAMS, "TRACE": str(trace)}
    monkeypatch.setattr(sources, "ENVIRONMENT", environment)
    check_out(spec)
    ran = {line.split()[0] for line in trace.read_text().splitlines()}
    assert ran == {str(users.build_user())}


SSH = """[ $(id -u) = {user} ] || exit 9
while [ $# -gt 1 ]; do shift; done
exec sh -c "$1"
"""


def test_a_source_by_ssh_is_fetched_with_root_s_key(
    spec: dict[str, Any], repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for ssh that works only for root."""
    hosts.on_path(monkeypatch, tmp_path / "path", "ssh", SSH.format(user=os.geteuid()))
    monkeypatch.setattr(sources, "ENVIRONMENT", {**sources.ENVIRONMENT, "PATH": sources.PROGRAMS})
    spec["artifact"]["source_url"] = f"git@forge.invalid:{repository}"
    folder = check_out(spec)
    assert (folder / "server.c").read_text() == "int one;\n"
    assert (folder / "server.c").stat().st_uid == users.build_user()
    assert sorted(path.name for path in folder.parent.iterdir()) == [spec["key"], users.SOURCE]


@pytest.mark.parametrize(
    ("url", "by_ssh"),
    [
        ("ssh://git@h/x.git", True), ("git@h:a/b.git", True), ("h:b", True),
        ("https://h:8443/x.git", False), ("git://h/x", False), ("/srv/x.git", False),
        ("file:///srv/a:b.git", False), ("./a:b", False),
    ],
)  # fmt: skip
def test_which_sources_are_by_ssh(url: str, by_ssh: bool) -> None:
    assert sources.is_by_ssh(url) is by_ssh
