"""Headers of real-sized models for tests that plan: made here, no hub is asked."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from gguf import GGMLQuantizationType
from gguf import GGMLQuantizationType as Type

from corral.errors import CorralError
from corral.fit.gguf import Header, Tensor, parse_header
from corral.fit.headers import ShardSource, StoredHeader, StoredSafetensors
from corral.model_files.safetensors import SafetensorsHeader, parse_safetensors
from corral.smoke_model import safetensors_writer
from lab.model_headers import (
    DEEPSEEK_V2_5,
    GLM_4_5_AIR,
    GLM_4_7,
    GLM_4_7_FLASH,
    GLM_4_32B,
    PUBLISHED,
    Mix,
    Shape,
    write_header,
)

# What a url has in it -> the model; the longer name first. Others are small ones.
_FOUR_BITS = Mix(experts_down=Type.Q4_K, dense=Type.Q4_K)
_SHAPES = {
    "glm-4.7-flash": GLM_4_7_FLASH,
    "glm-4.5-air": GLM_4_5_AIR,
    "glm-4.7": GLM_4_7,
    "glm-4.6": GLM_4_7,
    "32b-0414": GLM_4_32B,
    "deepseek-v2.5": DEEPSEEK_V2_5,
}


_SMALL = Shape(
    arch="glm4moe", blocks=4, mtp_blocks=1, embedding=256, feed_forward=512, heads=4,
    kv_heads=2, key_length=64, value_length=64, context_tokens=131072, vocabulary=512,
    experts=8, experts_used=2, expert_feed_forward=256, dense_blocks=1,
)  # fmt: skip


# The encoder of GLM-4.6V-Flash, without its tensors.
_PROJECTOR = Header(
    3,
    {
        "general.architecture": "clip",
        "clip.vision.embedding_length": 1536,
        "clip.vision.feed_forward_length": 13696,
        "clip.vision.attention.head_count": 12,
        "clip.vision.patch_size": 14,
    },
    (Tensor("v.blk.0.ffn_up.weight", (1536, 13696), 1, 0),),
    4096,
    32,
)


class MadeHeaders:
    """A HeaderSource: the whole model in the first shard, nothing in the others."""

    def headers(self, shards: Sequence[ShardSource]) -> list[StoredHeader]:
        url = shards[0].url.lower()
        if "mmproj" in url:
            return [StoredHeader(_PROJECTOR, _SHA256)]
        shape = next((shape for name, shape in _SHAPES.items() if name in url), _SMALL)
        mix = _IQ4_XS if "iq4_xs" in url else PUBLISHED
        headers = [made_header(shape, mix), *[_EMPTY] * (len(shards) - 1)]
        return [StoredHeader(header, _SHA256) for header in headers]

    def safetensors(self, shards: Sequence[ShardSource]) -> list[StoredSafetensors]:
        """The tiny model, whole in the first shard."""
        headers = [_tiny_header(), *[SafetensorsHeader((), 8)] * (len(shards) - 1)]
        return [StoredSafetensors(header, _SHA256) for header in headers]

    def content(self, file: ShardSource) -> bytes:  # noqa: ARG002
        """The configuration of the tiny model."""
        return _tiny_files()["config.json"]


# A quant of dense models that is four bits throughout.
_IQ4_XS = Mix(dense=GGMLQuantizationType.IQ4_XS, embeddings=GGMLQuantizationType.IQ4_XS)
_EMPTY = Header(3, {}, (), 32, 32)
_SHA256 = hashlib.sha256(b"made").hexdigest()


class NoHub:
    """A HeaderSource whose hub does not answer."""

    def headers(self, shards: Sequence[ShardSource]) -> list[StoredHeader]:
        raise CorralError(shards[0].url, "the hub does not answer", "see that it can be reached")

    def safetensors(self, shards: Sequence[ShardSource]) -> list[StoredSafetensors]:
        raise CorralError(shards[0].url, "the hub does not answer", "see that it can be reached")

    def content(self, file: ShardSource) -> bytes:
        raise CorralError(file.url, "the hub does not answer", "see that it can be reached")


@cache
def _tiny_files() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        safetensors_writer.write(Path(folder), "bf16")
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _tiny_header() -> SafetensorsHeader:
    return parse_safetensors(_tiny_files()["model.safetensors"])


@cache
def made_header(shape: Shape, mix: Mix = PUBLISHED) -> Header:
    """The header of a model of these dimensions and tensor types, without its vocabulary."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "made.gguf"
        write_header(path, shape, mix, vocabulary=False)
        with path.open("rb") as file:
            return parse_header(file.read(4 * 1024**2))
