"""Headers of multimodal projectors without their weights, for fit and for the engine.

Shapes are those of the published models (vision_config of each); weights are holes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

_CHANNELS = 3
_TYPE_BYTES = {Type.F16: 2, Type.F32: 4}


@dataclass(frozen=True)
class ProjectorShape:
    """Dimensions of a vision tower of GLM and of its merger.

    + feed_forward: of the blocks; + merger: of the merger, which the file's key names
    + output: of the model's residual stream
    """

    embedding: int
    feed_forward: int
    merger: int
    output: int
    heads: int
    blocks: int
    patch: int = 14
    merge: int = 2
    image: int = 336


# The vision_config of zai-org/GLM-4.6V-Flash; its blocks are as wide as the output.
GLM_4_6V_FLASH = ProjectorShape(
    embedding=1536, feed_forward=4096, merger=13696, output=4096, heads=12, blocks=24
)

Tensor = tuple[str, tuple[int, ...], Type]


def write_projector(path: Path, shape: ProjectorShape) -> int:
    """Write a header to ``path``, extend it with holes to the full size, and return that size."""
    writer = gguf.GGUFWriter(path, "clip")
    _write_keys(writer, shape)
    size_bytes = 0
    for name, dims, kind in _tensors(shape):
        tensor_bytes = int(np.prod(dims)) * _TYPE_BYTES[kind]
        kept = np.dtype(np.float16 if kind == Type.F16 else np.float32)
        writer.add_tensor_info(name, tuple(reversed(dims)), kept, tensor_bytes)
        size_bytes += -(-tensor_bytes // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    start = -(-path.stat().st_size // 32) * 32
    with path.open("r+b") as file:
        file.truncate(start + size_bytes)
    return start + size_bytes


def _write_keys(writer: gguf.GGUFWriter, s: ProjectorShape) -> None:
    writer.add_string("clip.projector_type", "glm4v")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.use_silu", True)
    vision = {
        "embedding_length": s.embedding,
        "feed_forward_length": s.merger,
        "block_count": s.blocks,
        "projection_dim": s.output,
        "attention.head_count": s.heads,
        "image_size": s.image,
        "patch_size": s.patch,
        "spatial_merge_size": s.merge,
    }
    for name, number in vision.items():
        writer.add_uint32(f"clip.vision.{name}", number)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    for name in ("image_mean", "image_std"):
        writer.add_array(f"clip.vision.{name}", [0.5] * _CHANNELS)


def _tensors(s: ProjectorShape) -> list[Tensor]:
    e, out, patch = s.embedding, s.output, (s.patch, s.patch, _CHANNELS, s.embedding)
    found: list[Tensor] = [
        ("v.patch_embd.weight", patch, Type.F16),
        ("v.patch_embd.weight.1", patch, Type.F16),
        ("v.patch_embd.bias", (e,), Type.F32),
        ("v.norm_embd.weight", (e,), Type.F32),
        ("v.position_embd.weight", (e, (s.image // s.patch) ** 2), Type.F32),
        ("v.post_ln.weight", (e,), Type.F32),
        ("mm.patch_merger.weight", (s.merge, s.merge, e, out), Type.F16),
        ("mm.patch_merger.bias", (out,), Type.F32),
        ("mm.model.fc.weight", (out, out), Type.F16),
        ("mm.post_norm.weight", (out,), Type.F32),
        ("mm.post_norm.bias", (out,), Type.F32),
        ("mm.up.weight", (out, s.merger), Type.F16),
        ("mm.gate.weight", (out, s.merger), Type.F16),
        ("mm.down.weight", (s.merger, out), Type.F16),
    ]
    for block in range(s.blocks):
        parts: list[Tensor] = [
            ("ln1.weight", (e,), Type.F32),
            ("ln2.weight", (e,), Type.F32),
            *((f"attn_{part}.weight", (e, e), Type.F16) for part in ("q", "k", "v", "out")),
            ("ffn_gate.weight", (e, s.feed_forward), Type.F16),
            ("ffn_up.weight", (e, s.feed_forward), Type.F16),
            ("ffn_down.weight", (s.feed_forward, e), Type.F16),
        ]
        found += [(f"v.blk.{block}.{name}", dims, kind) for name, dims, kind in parts]
    return found
