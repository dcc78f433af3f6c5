"""Memory of a multimodal projector (mmproj): its weights, and a bound of its encoder's buffers.

Source: tools/mtmd/clip.cpp of llama.cpp 0c1e57098bba. The encoder runs on the first GPU of the
server, one image at a time. The bound adds what one block holds, where the engine reuses buffers:
for each patch the residual, Q, K, V and the attention's result, and three rows of the feed-forward
part, all f32; without flash attention also scores and their softmax.
"""

from __future__ import annotations

from dataclasses import dataclass

from corral.catalog.profile import Profile
from corral.fit.gguf import Header, Value

_F32_BYTES = 4
_CHANNELS = 3
# Patches that become one token, in each direction, where the file does not say it.
_MERGE = 2
_ARCHITECTURE = "clip"


class BadProjectorError(ValueError):
    """A file that is no projector, or lacks the dimensions of its encoder; the text says what."""


@dataclass(frozen=True, slots=True)
class Projector:
    """A projector by its header; dimensions in elements, ``patch``: pixels of its side."""

    file_bytes: int
    embedding: int
    feed_forward: int
    heads: int
    patch: int
    merge: int

    def weights_bytes(self) -> int:
        """All of its tensors, on one device."""
        return self.file_bytes

    def compute_bytes(self, profile: Profile) -> int:
        """Upper bound of the encoder's buffers for the largest image."""
        patches = profile.image_tokens * self.merge**2
        rows = 5 * self.embedding + 3 * self.feed_forward + 2 * _CHANNELS * self.patch**2
        scores = 0 if profile.flash_attention else 2 * self.heads * patches**2
        return _F32_BYTES * (patches * rows + scores)


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

    return Projector(
        file_bytes=header.file_bytes,
        embedding=number("embedding_length"),
        feed_forward=number("feed_forward_length"),
        heads=number("attention.head_count"),
        patch=number("patch_size"),
        merge=number("spatial_merge_size", _MERGE),
    )
