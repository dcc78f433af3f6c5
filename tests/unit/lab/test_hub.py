"""The stand-in hub against the real huggingface_hub client."""

from __future__ import annotations

import hashlib
import http.client
import io
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from huggingface_hub import HfApi, RepoFile, RepoFolder
from huggingface_hub.errors import (
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from lab import hub
from tests.unit.running_hub import RESOLVE, WHOLE, RunningHub

pytestmark = pytest.mark.slow


def test_prepare_leaves_a_complete_repository_alone(prepared: Path) -> None:
    readme = prepared / "repos" / hub.REPOSITORY / "main" / "README.md"
    before = readme.stat().st_mtime_ns
    hub.prepare(prepared)
    assert readme.stat().st_mtime_ns == before


def test_model_info_gives_commit_sizes_and_digests(running: RunningHub) -> None:
    info = running.api.model_info(hub.REPOSITORY, files_metadata=True)
    assert info.sha is not None
    assert len(info.sha) == 40
    assert info.siblings is not None
    files = {sibling.rfilename: sibling for sibling in info.siblings}
    lfs = files[WHOLE].lfs
    assert lfs is not None
    assert lfs.sha256 == hashlib.sha256(running.content).hexdigest()
    assert lfs.size == files[WHOLE].size == len(running.content)
    assert files["README.md"].lfs is None
    assert running.api.model_info(hub.REPOSITORY, revision=info.sha).sha == info.sha


def test_paths_info_and_tree_describe_files_and_folders(running: RunningHub) -> None:
    found = running.api.get_paths_info(hub.REPOSITORY, [WHOLE, "F16", "absent"])
    assert [(type(entry), entry.path) for entry in found] == [
        (RepoFolder, "F16"),
        (RepoFile, WHOLE),
    ]
    tree = list(running.api.list_repo_tree(hub.REPOSITORY, recursive=True))
    assert sum(isinstance(entry, RepoFile) for entry in tree) == 4
    top = [entry.path for entry in running.api.list_repo_tree(hub.REPOSITORY)]
    assert top == ["F16", "Q8_0", "README.md"]
    below = [entry.path for entry in running.api.list_repo_tree(hub.REPOSITORY, "Q8_0")]
    assert below == [WHOLE]


@pytest.mark.parametrize("path", [WHOLE, "README.md"])
def test_the_client_downloads_the_bytes(running: RunningHub, tmp_path: Path, path: str) -> None:
    file = running.api.hf_hub_download(hub.REPOSITORY, path, cache_dir=tmp_path)
    source = running.root / "repos" / hub.REPOSITORY / "main" / path
    assert Path(file).read_bytes() == source.read_bytes()
    assert str(running.api.model_info(hub.REPOSITORY).sha) in file


def test_what_is_missing_has_the_error_of_the_real_hub(running: RunningHub) -> None:
    with pytest.raises(RepositoryNotFoundError):
        running.api.model_info("corral-lab/absent")
    with pytest.raises(RevisionNotFoundError):
        running.api.model_info(hub.REPOSITORY, revision="absent")
    with pytest.raises(RemoteEntryNotFoundError):
        running.api.hf_hub_download(hub.REPOSITORY, "absent.gguf")


def test_revisions_are_found_by_label_and_by_commit(tmp_path: Path, prepared: Path) -> None:
    repository = tmp_path / "repos" / hub.REPOSITORY
    shutil.copytree(prepared / "repos" / hub.REPOSITORY, repository)
    shutil.copytree(repository / "main", repository / "next")
    (repository / "next" / "README.md").write_text("another\n")
    with hub.running(tmp_path, log=io.StringIO()) as url:
        api = HfApi(endpoint=url, token=False)
        commits = {
            label: api.model_info(hub.REPOSITORY, revision=label).sha for label in ("main", "next")
        }
        assert commits["main"] != commits["next"]
        assert api.model_info(hub.REPOSITORY, revision=commits["next"]).sha == commits["next"]


def test_a_large_file_is_redirected_to_signed_storage_of_another_origin(
    running: RunningHub,
) -> None:
    reply = running.get(f"{RESOLVE}/{WHOLE}", "HEAD")
    assert reply.status == 302
    assert reply.headers["X-Linked-Size"] == str(len(running.content))
    assert reply.headers["X-Linked-Etag"] == f'"{hashlib.sha256(running.content).hexdigest()}"'
    location = reply.headers["Location"]
    assert urlsplit(location).netloc != urlsplit(running.url).netloc
    assert running.get(location).body == running.content
    assert running.get(location.replace("Q8_0", "F16")).status == 403
    assert running.get(location.replace("expires=", "expires=9")).status == 403


def test_a_signed_address_expires(prepared: Path) -> None:
    with hub.running(prepared, log=io.StringIO(), signed_seconds=0) as url:
        expired = RunningHub(prepared, url, io.StringIO())
        assert expired.get(expired.signed()).status == 403


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [("bytes=0-0", 0, 1), ("bytes=100-", 100, None), ("bytes=-7", -7, None), ("bytes=5-9", 5, 10)],
)
def test_ranges(running: RunningHub, header: str, start: int, end: int | None) -> None:
    reply = running.get(running.signed(), Range=header)
    assert reply.status == 206
    assert reply.body == running.content[start:end]
    first = start % len(running.content)
    last = first + len(reply.body) - 1
    assert reply.headers["Content-Range"] == f"bytes {first}-{last}/{len(running.content)}"


def test_a_range_after_the_end_is_refused_with_the_size(running: RunningHub) -> None:
    reply = running.get(running.signed(), Range=f"bytes={len(running.content)}-")
    assert reply.status == 416
    assert reply.headers["Content-Range"] == f"bytes */{len(running.content)}"


def test_several_requests_share_a_connection(running: RunningHub) -> None:
    connection = http.client.HTTPConnection(urlsplit(running.url).netloc, timeout=120)
    for method in ("GET", "HEAD", "GET"):
        connection.request(method, f"{RESOLVE}/README.md")
        response = connection.getresponse()
        assert response.status == 200
        assert bool(response.read()) == (method == "GET")
        assert not response.will_close
    connection.close()


def test_the_access_log_counts_requests_and_bytes(running: RunningHub) -> None:
    location = running.signed()
    running.logged(1)
    running.get(location, Range="bytes=0-99", Authorization="Bearer secret")
    redirect, transfer = running.logged(2)
    assert redirect == f"HEAD {RESOLVE}/{WHOLE} 302 range=- bytes=0 auth=no fault=-"
    expected = f"GET {urlsplit(location).path} 206 range=bytes=0-99 bytes=100 auth=yes fault=-"
    assert transfer == expected
