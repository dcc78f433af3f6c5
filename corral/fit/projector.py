"""Memory of a multimodal projector (mmproj): its weights, and a bound of its encoder's buffers.

Source: tools/mtmd/clip.cpp and models/glm4v.cpp of llama.cpp 0c1e57098bba. The encoder runs on the
first GPU of the server, one image at a time. Its buffers are reserved at the start for an image of
a fixed size, and grow with larger ones. The bound is of what is alive together at the widest point:
the feed-forward part or the attention of a block, or the merger, which sees one row for each token.
Checked against the server's own count on the CPU: tests/data/projector-compute.csv.
"""

from __future__ import annotations

from dataclasses import dataclass

from corral.catalog.profile import Profile
from corral.fit.gguf import Header, Tensor, Value

_F32_BYTES = 4
_CHANNELS = 3
# Patches that become one token, in each direction, where the file does not say it.
_MERGE = 2
_ARCHITECTURE = "clip"
# For GLM: set_warmup_n_tokens of clip.cpp.
_RESERVED_TOKENS = 46 * 46
_FEED_FORWARD = "ffn_up.weight"


class BadProjectorError(ValueError):
    """A file that is no projector, or lacks the dimensions of its encoder; the text says what."""


@dataclass(frozen=True, slots=True)
class Projector:
    """A projector by its header; dimensions in elements, ``patch``: pixels of its side.

    + feed_forward: of the blocks; + merger: of what makes tokens of patches; + output: of a token
    """

    file_bytes: int
    embedding: int
    feed_forward: int
    merger: int
    output: int
    heads: int
    patch: int
    merge: int

    def weights_bytes(self) -> int:
        """All of its tensors, on one device."""
        return self.file_bytes

    def compute_bytes(self, profile: Profile) -> int:
        """Upper bound of the encoder's buffers for the largest image."""
        tokens = max(profile.image_tokens, _RESERVED_TOKENS)
        patches = tokens * self.merge**2
        scores = 0 if profile.flash_attention else self.heads * patches
        attention = patches * (6 * self.embedding + scores)
        feed_forward = patches * (4 * self.embedding + 3 * self.feed_forward)
        merger = tokens * (3 * self.merger + 2 * self.output)
        pixels = patches * _CHANNELS * self.patch**2
        return _F32_BYTES * (max(attention, feed_forward, merger) + pixels)


def read_projector(header: Header) -> Projector:
    """A projector from its header. Raises BadProjectorError."""
    found = header.metadata.get("general.architecture")
    if found != _ARCHITECTURE:
        raise BadProjectorError(f'its architecture is "{found}", not "{_ARCHITECTURE}"')

    def number(key: str, default: int | None = None) -> int:
        value: Value | None = header.metadata.get(f"clip.vision.{key}", default)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**31:
            raise BadProjectorError(f"its header has no usable clip.vision.{key}")
        return value

    embedding, stated = number("embedding_length"), number("feed_forward_length")
    # The key of GLM's files is of the merger: their blocks have another width.
    in_blocks = [t.shape[-1] for t in header.tensors if _is_feed_forward(t)]
    return Projector(
        file_bytes=header.file_bytes,
        embedding=embedding,
        feed_forward=max(in_blocks, default=stated),
        merger=stated,
        output=number("projection_dim", embedding),
        heads=number("attention.head_count"),
        patch=number("patch_size"),
        merge=number("spatial_merge_size", _MERGE),
    )


def _is_feed_forward(tensor: Tensor) -> bool:
    return tensor.name.startswith("v.blk.") and tensor.name.endswith(_FEED_FORWARD)
