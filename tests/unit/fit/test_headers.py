"""Headers of shards: fetched by ranges from a hub over HTTP, kept by digest."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from corral.fit.gguf import parse_header
from corral.fit.headers import HeaderStore, ShardSource
from corral.paths import default_headers_folder
from tests.fuzz.gguf_files import ARRAY, BOOL, FLOAT32, STRING, UINT32, File, Key, placed, write
from tests.unit.fit.test_gguf import FILE_BYTES, real
from tests.unit.ranged_server import RangedServer, Served, serving
from tests.unit.running_hub import RESOLVE, WHOLE, RunningHub
from tests.unit.small_disks import fill_up

pytestmark = pytest.mark.slow

AIR = "GLM-4.5-Air"
MIB = 1024**2


@pytest.fixture
def store(tmp_path: Path) -> HeaderStore:
    return HeaderStore(tmp_path / "headers")


@pytest.fixture
def server() -> Iterator[RangedServer]:
    with serving() as running:
        yield running


def small(text: str = "") -> bytes:
    keys = [
        Key("general.name", STRING, text),
        Key("words", ARRAY, ["a"], STRING),
        Key("layers", ARRAY, [1, 2], UINT32),
        Key("scales", ARRAY, [0.1, float("inf")], FLOAT32),
        Key("flags", ARRAY, [True, False], BOOL),
    ]
    return bytes(write(File(keys, placed([("a", (32,), 2)]))).data)


def tiny(hub: RunningHub) -> ShardSource:
    digest = hashlib.sha256(hub.content).hexdigest()
    return ShardSource(f"{hub.url}{RESOLVE}/{WHOLE}", digest, len(hub.content))


def test_a_header_comes_through_the_redirect_of_a_hub(
    running: RunningHub, store: HeaderStore
) -> None:
    stored = store.header(tiny(running))
    assert stored.header == parse_header(running.content)
    raw = running.content[: stored.header.data_start_bytes]
    assert stored.header_sha256 == hashlib.sha256(raw).hexdigest()


def test_no_token_is_sent(
    running: RunningHub, store: HeaderStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    store.header(tiny(running))
    lines = running.logged(2)
    assert {line.split()[2] for line in lines} == {"302", "206"}
    assert all(" auth=no " in line for line in lines)


@pytest.mark.parametrize("name", FILE_BYTES)
def test_the_header_of_a_big_model_costs_under_8_mib(
    server: RangedServer, store: HeaderStore, name: str
) -> None:
    shard = server.add(f"{name}.gguf", Served(real(name), FILE_BYTES[name]))
    assert store.header(shard).header.file_bytes == FILE_BYTES[name]
    assert server.sent_bytes <= 4 * MIB
    assert len(server.requests) == 1


def test_a_later_shard_costs_a_quarter_of_a_mib(server: RangedServer, store: HeaderStore) -> None:
    first = server.add("m-00001-of-00002.gguf", Served(small("first"), 20 * MIB))
    later = server.add("m-00002-of-00002.gguf", Served(small("later"), 20 * MIB))
    names = [stored.header.metadata["general.name"] for stored in store.headers([later, first])]
    assert names == ["later", "first"]
    assert sorted(server.requests) == [
        "m-00001-of-00002.gguf bytes=0-4194303",
        "m-00002-of-00002.gguf bytes=0-262143",
    ]


def test_a_longer_header_is_fetched_on_in_steps(server: RangedServer, store: HeaderStore) -> None:
    content = small("x" * (5 * MIB))
    shard = server.add("m.gguf", Served(content, 20 * MIB))
    assert store.header(shard).header == parse_header(content)
    assert len(server.requests) == 3
    assert server.sent_bytes < len(content) + MIB


def test_a_kept_header_is_not_fetched_again(server: RangedServer, tmp_path: Path) -> None:
    shard = server.add("m.gguf", Served(real(AIR), FILE_BYTES[AIR]))
    fetched = HeaderStore(tmp_path).header(shard)
    moved = ShardSource("http://127.0.0.1:9/gone", shard.sha256, shard.size_bytes)
    assert HeaderStore(tmp_path).header(moved) == fetched
    assert len(server.requests) == 1


def test_a_kept_header_is_the_one_that_was_fetched(server: RangedServer, tmp_path: Path) -> None:
    shard = server.add("m.gguf", Served(small("é\n")))
    assert HeaderStore(tmp_path).header(shard) == HeaderStore(tmp_path).header(shard)
    kept = HeaderStore(tmp_path).header(shard).header
    assert repr(kept) == repr(parse_header(small("é\n")))


def test_a_kept_header_costs_one_read_of_a_small_file(
    server: RangedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the vocabulary, which is most of a header's bytes, only its length is kept."""
    shards = [
        server.add(f"{number}.gguf", Served(real(AIR), FILE_BYTES[AIR])) for number in range(2)
    ]
    HeaderStore(tmp_path).headers(shards)
    raw_bytes = parse_header(real(AIR)).data_start_bytes
    read, read_bytes = [], Path.read_bytes

    def counted(path: Path) -> bytes:
        content = read_bytes(path)
        read.append((path.name, len(content)))
        return content

    monkeypatch.setattr(Path, "read_bytes", counted)
    HeaderStore(tmp_path).headers(shards)
    assert sorted(name for name, _ in read) == sorted(f"{s.sha256}.header" for s in shards)
    assert all(size < raw_bytes / 20 for _, size in read), (read, raw_bytes)


def test_a_damaged_kept_header_is_fetched_again(server: RangedServer, tmp_path: Path) -> None:
    shard = server.add("m.gguf", Served(small("good")))
    fetched = HeaderStore(tmp_path).header(shard)
    kept = next(tmp_path.iterdir())
    good = kept.read_bytes()
    for damaged in (b"", good[:-1], good.replace(b"good", b"evil")):
        kept.write_bytes(damaged)
        assert HeaderStore(tmp_path).header(shard) == fetched
        assert kept.read_bytes() == good
    assert len(server.requests) == 4


def test_only_whole_files_are_left_in_the_folder(server: RangedServer, tmp_path: Path) -> None:
    shard = server.add("m.gguf", Served(small()))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: HeaderStore(tmp_path).header(shard), range(8)))
    assert all(stored == found[0] for stored in found)
    assert [path.name for path in tmp_path.iterdir()] == [f"{shard.sha256}.header"]


def test_a_folder_that_cannot_be_written_is_done_without(
    server: RangedServer, tmp_path: Path
) -> None:
    shard = server.add("m.gguf", Served(small()))
    (tmp_path / "file").write_text("in the way")
    store = HeaderStore(tmp_path / "file" / "headers")
    assert store.header(shard) == store.header(shard)
    assert len(server.requests) == 2


def test_a_full_disk_is_done_without(
    server: RangedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = server.add("m.gguf", Served(small()))
    fill_up(monkeypatch)
    assert HeaderStore(tmp_path).header(shard).header.tensors
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_below_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_headers_folder() == Path("/somewhere/corral/headers")
    for unset in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert default_headers_folder() == Path.home() / ".cache/corral/headers"


def test_no_shards_need_no_hub(store: HeaderStore) -> None:
    assert store.headers([]) == []


def test_a_client_is_only_imported_to_fetch() -> None:
    """Importing it takes longer than reading what is kept."""
    code = "import sys, corral.fit.headers; sys.exit('httpx2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
