"""A served bundle: the hub's protocol, packages and wheels; nothing but what its manifest names."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from corral.catalog.entries import Model, Quant
from corral.errors import CorralError
from corral.fit.headers import HeaderStore, ShardSource
from corral.offline.manifest import BundleFile
from corral.offline.routes import Routes
from corral.offline.serve import serving, take_headers
from corral.offline.verify import Opened, prove
from corral.smoke_model.fixture import SmokeModel
from corral.sources import hub as hub_client
from tests.unit.helper_modules import helper_module
from tests.unit.offline import made

pytestmark = pytest.mark.slow

REPO = "acme/Tiny-GGUF"
PRIVATE = "only for me"
RESOLVE = f"/{REPO}/resolve/{made.REVISION}/Q8_0/tiny.gguf"


@dataclass
class Server:
    """A served bundle, and the lines that it reported."""

    folder: Path
    url: str = ""
    lines: list[str] = field(default_factory=list)

    def ask(
        self, target: str, method: str = "GET", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=120)
        try:
            connection.request(method, target, headers=headers)
            response = connection.getresponse()
            return response.status, dict(response.headers), response.read()
        finally:
            connection.close()

    def raw(self, target: str) -> bytes:
        """The answer to a target that no client would send."""
        parts = urlsplit(self.url)
        with socket.create_connection((parts.hostname, parts.port), timeout=120) as connection:
            connection.sendall(f"GET {target} HTTP/1.0\r\n\r\n".encode())
            return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("STATE", "CACHE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name))
    folder = tmp_path / "disk"
    (tmp_path / "secret").write_text(PRIVATE)
    made.write(folder, {**made.FILES, made.WEIGHTS: SmokeModel().content()})
    (folder / "apt" / "unlisted").write_text(PRIVATE)
    found = Server(folder)
    opened = Opened(folder)
    routes = Routes([(opened, prove(opened, made.quiet))])
    with serving("127.0.0.1", 0, routes, found.lines.append) as url:
        found.url = url
        yield found


def weights(server: Server) -> BundleFile:
    return next(f for f in Opened(server.folder).bundle.files if f.name == made.WEIGHTS)


def test_a_hubs_client_finds_the_locked_revision(server: Server) -> None:
    quants = {"Q8_0": Quant(files="Q8_0/*.gguf")}
    model = Model(repo=REPO, revision=made.REVISION, train_context_tokens=8, quants=quants)
    found = hub_client.describe("tiny", model, server.url)
    assert found.sha == made.REVISION
    (file,) = found.siblings
    assert file.rfilename == "Q8_0/tiny.gguf"
    assert file.lfs
    assert file.lfs["sha256"] == weights(server).sha256
    with pytest.raises(CorralError, match="has no repository"):
        hub_client.describe("x", model.model_copy(update={"repo": "acme/Other"}), server.url)
    with pytest.raises(CorralError, match="has no revision"):
        hub_client.describe("x", model.model_copy(update={"revision": "0" * 40}), server.url)


def test_headers_are_read_by_range_as_from_a_hub(server: Server, tmp_path: Path) -> None:
    file = weights(server)
    source = ShardSource(f"{server.url}{RESOLVE}", file.sha256, file.size_bytes)
    stored = HeaderStore(tmp_path / "headers").header(source)
    assert 0 < stored.header.data_start_bytes < file.size_bytes
    shard = {
        "url": source.url, "path": "/m/tiny.gguf", "size_bytes": file.size_bytes,
        "header": {"size_bytes": stored.header.data_start_bytes, "sha256": stored.header_sha256},
        "revision": made.REVISION,
    }  # fmt: skip
    headers = helper_module("weights.headers")
    assert len(headers.fetch_header(shard)) == stored.header.data_start_bytes


def test_a_host_fetches_and_proves_weights(server: Server, tmp_path: Path) -> None:
    file = weights(server)
    path = tmp_path / "models" / REPO / made.REVISION / "Q8_0" / "tiny.gguf"
    shard = {
        "url": f"{server.url}{RESOLVE}", "path": str(path), "size_bytes": file.size_bytes,
        "sha256": file.sha256, "revision": made.REVISION,
    }  # fmt: skip
    staged = tmp_path / "staged"
    helper_module("weights.fetch").fetch_shard(shard, staged)
    assert path.read_bytes() == (server.folder / made.WEIGHTS).read_bytes()


def test_a_head_says_size_and_revision_without_a_body(server: Server) -> None:
    status, headers, body = server.ask(RESOLVE, "HEAD")
    assert (status, body) == (200, b"")
    assert headers["X-Repo-Commit"] == made.REVISION
    assert headers["X-Linked-Size"] == headers["Content-Length"]


@pytest.mark.parametrize(
    ("asked", "status", "content"),
    [("bytes=2-4", 206, b"pac"), ("bytes=7-", 206, b"ge"), ("bytes=0-99", 206, b"a package"),
     ("bytes=9-", 416, b""), ("bytes=4-2", 416, b""), ("lines=1-2", 200, b"a package")],
)  # fmt: skip
def test_ranges(server: Server, asked: str, status: int, content: bytes) -> None:
    found, headers, body = server.ask(f"/{made.DEB}", Range=asked)
    assert (found, body) == (status, content)
    assert int(headers["Content-Length"]) == len(content)


@pytest.mark.parametrize(
    "target",
    [
        "/../secret", "/apt/../../secret", "/apt/%2e%2e/%2e%2e/secret", "//apt/unlisted",
        "/./apt/unlisted",
        "/apt/unlisted", "/bundle.json", "/.work/journal", "/lock/corral.lock", "/apt/debian-12",
        f"/{REPO}/resolve/{made.REVISION}/../../../../../../secret", "/", "/%00", "/wheels/",
        "http://127.0.0.1/secret", f"/acme%2F..%2Fx/resolve/{made.REVISION}/a",
    ],
)  # fmt: skip
def test_nothing_but_names_of_the_manifest_is_served(server: Server, target: str) -> None:
    answer = server.raw(target)
    assert answer.split()[1] == b"404"
    assert PRIVATE.encode() not in answer


def test_apt_asks_with_a_dot_in_the_path(server: Server) -> None:
    assert server.ask("/apt/debian-12/./InRelease")[2] == b"signed\n"
    assert server.ask("/apt/debian-12//InRelease")[2] == b"signed\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_it_is_read_only(server: Server, method: str) -> None:
    assert server.ask(f"/{made.DEB}", method)[0] == 501
    assert (server.folder / made.DEB).read_bytes() == b"a package"


def test_a_file_that_changed_since_it_was_proved_is_not_served(server: Server) -> None:
    (server.folder / made.DEB).write_bytes(b"b package")
    status, headers, _ = server.ask(f"/{made.DEB}")
    assert status == 409
    assert "corral bundle verify" in headers["X-Error-Message"]
    (server.folder / made.DEB).unlink()
    assert server.ask(f"/{made.DEB}")[0] == 409


def test_wheels_are_found_by_any_spelling_of_their_name(server: Server) -> None:
    status, _, page = server.ask("/simple/demo-pkg/")
    assert status == 200
    digest = made.described(made.WHEEL, made.FILES[made.WHEEL]).sha256
    assert f'href="/{made.WHEEL}#sha256={digest}"'.encode() in page
    assert server.ask(f"/{made.WHEEL}")[2] == b"a wheel"
    assert server.ask("/simple/other/")[0] == 404


def test_what_an_odd_client_sends_is_reported_as_text(server: Server) -> None:
    server.raw("/\x1b[31mred")
    assert server.lines
    assert not any("\x1b" in line for line in server.lines)


def test_a_smaller_bundle_is_served_with_that_which_it_adds_to(
    tmp_path: Path, server: Server
) -> None:
    first = Opened(server.folder)
    since = {"at": first.bundle.at, "manifest_sha256": first.manifest_sha256}
    deb = made.described(made.DEB, made.FILES[made.DEB])
    new = {made.WEIGHTS.replace("Q8_0", "F16"): b"new weights"}
    made.write(tmp_path / "second", new, since=since, elsewhere=(deb,))
    second = Opened(tmp_path / "second")
    pairs = [(one, prove(one, made.quiet)) for one in (first, second)]
    for shown, status in ((pairs, 200), (pairs[1:], 404)):
        with serving("127.0.0.1", 0, Routes(shown), made.quiet) as url:
            found, headers, _ = Server(tmp_path, url).ask(f"/{made.DEB}")
            assert found == status
            new_one = RESOLVE.replace("Q8_0", "F16")
            assert Server(tmp_path, url).ask(new_one)[2] == b"new weights"
    assert f"serve the bundle of {first.bundle.at} together" in headers["X-Error-Message"]


def test_an_address_that_is_not_ours_is_one_message(server: Server) -> None:
    port = int(urlsplit(server.url).port or 0)
    for address, at in (("192.0.2.1", 8090), ("127.0.0.1", port)):
        with (
            pytest.raises(CorralError, match="cannot be served on") as error,
            serving(address, at, Routes([]), made.quiet),
        ):
            pass
        assert "--address" in error.value.next_step


def test_headers_go_to_the_cache_of_this_controller_once(tmp_path: Path, server: Server) -> None:
    made.write(tmp_path / "other", {f"headers/{'1' * 64}.header": b"header"})
    assert take_headers(Opened(tmp_path / "other")) == 1
    assert (tmp_path / "CACHE/corral/headers" / f"{'1' * 64}.header").read_bytes() == b"header"
    assert take_headers(Opened(tmp_path / "other")) == 0
    assert server.url
