"""Headers of what is planned for, and of what is locked: at hand, or why not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from corral.errors import CorralError
from corral.fit.headers import ShardSource, StoredHeader, StoredSafetensors
from corral.fit.model import ModelFile
from corral.fit.sources import LockedModels, with_headers
from corral.model_files.safetensors import SafetensorsHeader, Tensor
from corral.plan.weights import ShardPlan
from tests.headers import NoHub
from tests.samples import REPO, REVISION, catalog, lock
from tests.unit.fit_samples import AIR, header, model

TINY = SafetensorsHeader((Tensor("lm_head.weight", "BF16", (2, 2), 0),), 100)
SHARDS = tuple(
    ShardPlan(
        url=f"http://hub/{n}.gguf", revision="r", path=f"/m/{n}", size_bytes=n, sha256=f"{n}" * 64
    )
    for n in (1, 2)
)


class Asked:
    """A HeaderSource that keeps what it was asked; each shard has the same header."""

    def __init__(self) -> None:
        self.shards: list[ShardSource] = []
        self.files: list[ShardSource] = []

    def headers(self, shards: Sequence[ShardSource]) -> list[StoredHeader]:
        self.shards += shards
        return [StoredHeader(header(AIR), f"f{shard.sha256[1:]}") for shard in shards]

    def safetensors(self, shards: Sequence[ShardSource]) -> list[StoredSafetensors]:
        self.shards += shards
        return [StoredSafetensors(TINY, f"f{shard.sha256[1:]}") for shard in shards]

    def content(self, file: ShardSource) -> bytes:
        self.files.append(file)
        return b'{"architectures": ["Other"]}'


def test_shards_are_planned_with_their_headers() -> None:
    source = Asked()
    found = with_headers(SHARDS, source)
    assert source.shards == [ShardSource(s.url, s.sha256, s.size_bytes) for s in SHARDS]
    assert found.unknown == ""
    assert isinstance(found.model, ModelFile)
    assert found.model.shape == model(AIR).shape
    assert found.model.file_bytes == 2 * model(AIR).file_bytes
    for shard, planned in zip(found.shards, SHARDS, strict=True):
        assert shard.header
        assert shard.header.size_bytes == header(AIR).data_start_bytes
        assert shard.header.sha256 == f"f{planned.sha256[1:]}"
        assert shard.model_copy(update={"header": None}) == planned


def test_a_hub_that_does_not_answer_leaves_shards_without_headers() -> None:
    found = with_headers(SHARDS, NoHub())
    assert (found.shards, found.model) == (SHARDS, None)
    assert found.unknown == "http://hub/1.gguf: the hub does not answer"


def test_a_locked_quant_is_read_where_the_hub_has_its_revision() -> None:
    source = Asked()
    found = LockedModels(catalog(), lock(), "http://hub", source).read("small", "F16")
    names = [f"F16/Small-F16-0000{n}-of-00002.gguf" for n in (1, 2)]
    assert [s.url for s in source.shards] == [
        f"http://hub/{REPO}/resolve/{REVISION}/{name}" for name in names
    ]
    assert found.file_bytes == 2 * model(AIR).file_bytes


@pytest.mark.parametrize(
    ("name", "quant", "said"),
    [
        ("small", "Q9", "model small has no quant Q9 (known: F16, Q8_0)"),
        ("smal", "F16", 'unknown model "smal" (did you mean "small"?)'),
    ],
)
def test_names_that_are_not_known_are_told(name: str, quant: str, said: str) -> None:
    with pytest.raises(CorralError) as caught:
        LockedModels(catalog(), lock(), "http://hub", NoHub()).read(name, quant)
    assert caught.value.where == f"{name}/{quant}"
    assert caught.value.what == said
