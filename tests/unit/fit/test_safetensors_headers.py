"""Headers of safetensors shards and small files: fetched once, kept by digest, or refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from corral.errors import CorralError
from corral.fit.headers import HeaderStore, ShardSource
from corral.model_files.safetensors import parse_safetensors
from tests.unit.ranged_server import RangedServer, Served, serving
from tests.unit.safetensors_files import data_bytes, header_of

TENSORS = {"a.weight": ("BF16", (4, 3)), "a.scale": ("F32", (4, 1))}
RAW = header_of(TENSORS)
SIZE_BYTES = len(RAW) + data_bytes(TENSORS)


@pytest.fixture
def server() -> Iterator[RangedServer]:
    with serving() as running:
        yield running


def shard(server: RangedServer, served: Served | None = None) -> ShardSource:
    return server.add("m-00001-of-00001.safetensors", served or Served(RAW, SIZE_BYTES))


def test_a_header_is_fetched_once_with_its_digest(server: RangedServer, tmp_path: Path) -> None:
    source = shard(server)
    (stored,) = HeaderStore(tmp_path).safetensors([source])
    assert stored.header == parse_safetensors(RAW)
    assert stored.header_sha256 == hashlib.sha256(RAW).hexdigest()
    assert HeaderStore(tmp_path).safetensors([source]) == [stored]
    assert len(server.requests) == 1


def test_a_long_header_costs_its_own_size(server: RangedServer, tmp_path: Path) -> None:
    """As of a shard with thousands of experts; a quarter of a MiB is asked for first."""
    tensors = {f"experts.{n}.{'x' * 60}": ("BF16", (1, 1)) for n in range(9000)}
    raw = header_of(tensors)
    source = shard(server, Served(raw, len(raw) + data_bytes(tensors)))
    (stored,) = HeaderStore(tmp_path).safetensors([source])
    assert len(stored.header.tensors) == 9000
    assert len(server.requests) == 2
    assert server.sent_bytes <= len(raw) + 1024**2


def test_a_damaged_kept_header_is_fetched_again(server: RangedServer, tmp_path: Path) -> None:
    source = shard(server)
    first = HeaderStore(tmp_path).safetensors([source])
    (kept,) = tmp_path.iterdir()
    good = kept.read_bytes()
    for damaged in (b"", good[:-1], good.replace(b"scale", b"skale")):
        kept.write_bytes(damaged)
        assert HeaderStore(tmp_path).safetensors([source]) == first
        assert kept.read_bytes() == good
    assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("size_bytes", "said"),
    [
        (SIZE_BYTES - 1, f"truncated: it has {SIZE_BYTES - 1} bytes"),
        (SIZE_BYTES + 8, "8 bytes of the file belong to no tensor"),
        (len(RAW) - 4, "truncated"),
    ],
)
def test_a_file_of_another_size_than_its_tensors_is_refused(
    server: RangedServer, tmp_path: Path, size_bytes: int, said: str
) -> None:
    with pytest.raises(CorralError) as caught:
        HeaderStore(tmp_path).safetensors([shard(server, Served(RAW, size_bytes))])
    assert said in caught.value.what
    assert caught.value.where.endswith(".safetensors")
    assert not list(tmp_path.iterdir())


def test_a_gguf_file_under_this_name_is_refused(server: RangedServer, tmp_path: Path) -> None:
    with pytest.raises(CorralError, match="not a safetensors file"):
        HeaderStore(tmp_path).safetensors([shard(server, Served(b"GGUF\3\0\0\0" * 9, 10**9))])


CONFIG = b'{"model_type": "glm4_moe"}'


def config(server: RangedServer, body: bytes = CONFIG) -> ShardSource:
    server.add("config.json", Served(body, len(body), ranges=False))
    return ShardSource(f"{server.url}/config.json", hashlib.sha256(CONFIG).hexdigest(), len(CONFIG))


def test_a_small_file_is_fetched_whole_and_once(server: RangedServer, tmp_path: Path) -> None:
    """Also from a hub that serves ranges of large files only."""
    file = config(server)
    assert HeaderStore(tmp_path).content(file) == CONFIG
    assert HeaderStore(tmp_path).content(file) == CONFIG
    assert len(server.requests) == 1
    next(tmp_path.iterdir()).write_bytes(b"rot")
    assert HeaderStore(tmp_path).content(file) == CONFIG
    assert len(server.requests) == 2


@pytest.mark.parametrize("body", [CONFIG.replace(b"4", b"5"), CONFIG + b" ", CONFIG[:-1], b""])
def test_a_small_file_with_other_bytes_is_refused(
    server: RangedServer, tmp_path: Path, body: bytes
) -> None:
    with pytest.raises(CorralError, match="other bytes than the locked ones"):
        HeaderStore(tmp_path).content(config(server, body))
    assert not list(tmp_path.iterdir())
