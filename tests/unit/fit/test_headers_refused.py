"""Hubs and files that give no header: one message each, and nothing kept."""

from __future__ import annotations

import hashlib

import pytest

from corral.errors import CorralError
from corral.fit.gguf import parse_header
from corral.fit.headers import HeaderStore, ShardSource
from lab.faults import Rule, faults
from tests.fuzz.gguf_files import File, placed, write
from tests.unit.fit.test_gguf import FILE_BYTES, real
from tests.unit.fit.test_headers import AIR, MIB, server, small, store, tiny
from tests.unit.ranged_server import RangedServer, Served
from tests.unit.running_hub import RunningHub

pytestmark = pytest.mark.slow

__all__ = ["server", "store"]


def refusal(store: HeaderStore, shard: ShardSource) -> CorralError:
    with pytest.raises(CorralError) as caught:
        store.header(shard)
    assert caught.value.where == shard.url
    return caught.value


def test_a_hub_without_ranges_is_left_before_its_body(
    server: RangedServer, store: HeaderStore
) -> None:
    shard = server.add("m.gguf", Served(real(AIR), FILE_BYTES[AIR], ranges=False))
    error = refusal(store, shard)
    assert "does not serve ranges" in error.what
    assert "hub_url" in error.next_step
    assert server.sent_bytes < 20 * MIB


def test_a_hub_that_holds_another_file_is_stale(running: RunningHub, store: HeaderStore) -> None:
    shard = tiny(running)
    with faults(running.root, Rule(match="*.gguf", kind="short", size_bytes=5000)):
        error = refusal(store, shard)
    assert error.what == f"the hub's file has 5000 bytes, the locked one {shard.size_bytes}"
    assert "corral lock" in error.next_step


@pytest.mark.parametrize("answer", ["", "bytes 7-20/{size}", "bytes 0-20/*"])
def test_a_range_that_was_not_asked_for_is_refused(
    server: RangedServer, store: HeaderStore, answer: str
) -> None:
    shard = server.add("m.gguf", Served(small()))
    server.files["m.gguf"] = Served(small(), content_range=answer.format(size=shard.size_bytes))
    assert "the hub answers with" in refusal(store, shard).what


def test_a_connection_that_is_cut_is_one_message(running: RunningHub, store: HeaderStore) -> None:
    with faults(running.root, Rule(match="/cdn/*", kind="cut", after_bytes=1000)):
        assert "the hub does not answer" in refusal(store, tiny(running)).what
    with faults(running.root, Rule(match="*", kind="down")):
        assert "the hub does not answer" in refusal(store, tiny(running)).what


def test_a_body_shorter_than_the_range_is_refused(server: RangedServer, store: HeaderStore) -> None:
    shard = server.add("m.gguf", Served(small(), most_bytes=10))
    error = refusal(store, shard)
    assert error.what == f"the hub sent 10 of the {shard.size_bytes} bytes from byte 0 on"


def test_no_more_is_read_than_was_asked_for(server: RangedServer, store: HeaderStore) -> None:
    shard = server.add("m.gguf", Served(real(AIR), FILE_BYTES[AIR], extra_bytes=1024 * MIB))
    raw_sha256 = hashlib.sha256(real(AIR)).hexdigest()
    assert store.header(shard).header_sha256 == raw_sha256
    assert server.sent_bytes < 20 * MIB


def test_bytes_beyond_the_range_are_dropped(server: RangedServer, store: HeaderStore) -> None:
    content = small("x" * (5 * MIB))
    shard = server.add("m.gguf", Served(content, 20 * MIB, extra_bytes=100))
    assert store.header(shard).header == parse_header(content)


@pytest.mark.parametrize(
    ("status", "what"),
    [
        (401, "the hub requires a token (401)"),
        (403, "the hub forbids it (403)"),
        (404, "the hub has no such file (404)"),
        (416, "the hub's file is shorter than the locked one (416)"),
        (500, "the hub answers 500"),
    ],
)
def test_a_refusal_is_one_message(
    server: RangedServer, store: HeaderStore, status: int, what: str
) -> None:
    shard = server.add("m.gguf", Served(small(), status=status))
    assert refusal(store, shard).what == what


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/m.gguf", "m.gguf", "http://a:b/m.gguf"])
def test_a_hub_that_is_not_there_is_one_message(store: HeaderStore, url: str) -> None:
    assert "the hub does not answer" in refusal(store, ShardSource(url, "0" * 64, 1000)).what


def test_a_file_that_is_no_gguf_says_what_it_starts_with(
    server: RangedServer, store: HeaderStore
) -> None:
    shard = server.add("m.gguf", Served(b"<!DOCTYPE html>"))
    assert "it is not a GGUF file, it starts with b'<!DO'" in refusal(store, shard).what


def test_an_unknown_tensor_type_is_named(server: RangedServer, store: HeaderStore) -> None:
    content = write(File(tensors=placed([("blk.0.x", (32,), 0)])))
    position = content.places[-2][0]
    content.data[position : position + 4] = (4242).to_bytes(4, "little")
    shard = server.add("m.gguf", Served(bytes(content.data)))
    assert "tensor blk.0.x has the unknown type 4242" in refusal(store, shard).what


def test_a_file_that_ends_in_its_header_is_truncated(
    server: RangedServer, store: HeaderStore
) -> None:
    shard = server.add("m.gguf", Served(small()[:-40], total_bytes=len(small()) - 40))
    assert refusal(store, shard).what.startswith("truncated: it has ")


def test_a_file_that_ends_in_its_data_is_truncated(
    server: RangedServer, store: HeaderStore
) -> None:
    needed = FILE_BYTES[AIR]
    shard = server.add("m.gguf", Served(real(AIR), needed - 1))
    assert refusal(store, shard).what == (
        f"truncated: it has {needed - 1} bytes, its header asks for {needed}"
    )


def test_one_bad_shard_fails_all(server: RangedServer, store: HeaderStore) -> None:
    good = server.add("good.gguf", Served(small("good")))
    bad = server.add("bad.gguf", Served(small("bad"), status=404))
    with pytest.raises(CorralError, match="bad.gguf"):
        store.headers([good, bad])
