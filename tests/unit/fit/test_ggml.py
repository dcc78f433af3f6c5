"""Bytes of tensors, against the gguf library and by hand."""

from __future__ import annotations

import pytest
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from corral.fit.ggml import KV_TYPES, TYPES, tensor_bytes

# The library counts two floats for its scale and sum; ggml-common.h has had two halves since 2024.
_LIBRARY_IS_STALE = {GGMLQuantizationType.Q8_1}


@pytest.mark.parametrize("kind", sorted(set(GGML_QUANT_SIZES) - _LIBRARY_IS_STALE))
def test_mainline_types_are_those_of_the_gguf_library(kind: GGMLQuantizationType) -> None:
    block_elements, block_bytes = GGML_QUANT_SIZES[kind]
    known = TYPES[int(kind)]
    assert (known.block_elements, known.block_bytes) == (block_elements, block_bytes)
    assert known.row_meta_bytes == 0
    assert known.name.lower() == kind.name.lower()


@pytest.mark.parametrize(
    ("type_id", "shape", "size_bytes"),
    [
        (9, (32,), 2 + 2 + 32),  # q8_1
        (42, (64,), 2 + 64 // 4),  # q2_0: mainline's, newer than the library
        (133, (128,), 4 * (2 + 8 + 16)),  # q6_0
        (137, (256,), 2 + 2 + 8 + 64),  # iq2_k
        (138, (256,), 2 + 2 + 2 + 8 + 32 + 64),  # iq3_k
        (139, (256,), 2 + 2 + 4 + 8 + 128),  # iq4_k
        (140, (256,), 2 + 2 + 4 + 8 + 128 + 32),  # iq5_k
        (141, (256,), 2 + 2 + 16 + 128 + 64),  # iq6_k
        (144, (512, 3), 3 * (4 + 2 * (8 + 128))),  # iq4_ks: a float a row
        (145, (512, 3), 3 * (2 + 2 * (2 + 4 + 64))),  # iq2_ks: a half a row
        (146, (4096, 10, 2), 20 * (4 + 16 * 128)),  # iq4_kss
        (151, (128, 8), 8 * (8 + 128)),  # q8_KV
        (152, (256,), 4 + 8 + 128 + 32),  # iq5_ks
        (153, (256,), 4 + 68),  # iq2_kt
        (155, (256,), 4 + 128),  # iq4_kt
        (156, (256,), 2 + 2 + 4 + 64 + 32),  # iq3_ks
        (157, (256,), 2 + 2 + 4 + 64 + 16),  # iq2_kl
        (158, (256,), 4 + 56),  # iq1_kt
        (212, (256, 4), 4 * 144),  # q4_k_r4: as q4_K
        (219, (64, 4), 4 * (2 + 2 * 6)),  # iq1_s_r4: a half a row
        (399, (256, 8), 8 * (2 + 256)),  # q8_k_r8
    ],
)
def test_a_tensor_takes_so_many_bytes(
    type_id: int, shape: tuple[int, ...], size_bytes: int
) -> None:
    assert tensor_bytes(type_id, shape) == size_bytes


@pytest.mark.parametrize(
    ("name", "bytes_of_32"),
    [("f32", 128), ("f16", 64), ("bf16", 64), ("q8_0", 34), ("q5_1", 24), ("q5_0", 22)]
    + [("q4_1", 20), ("q4_0", 18), ("iq4_nl", 18), ("q6_0", 26), ("q8_KV", 40)],
)
def test_a_cache_type_takes_so_many_bytes(name: str, bytes_of_32: int) -> None:
    assert tensor_bytes(KV_TYPES[name], (32,)) == bytes_of_32


def test_there_are_no_other_cache_types() -> None:
    assert len(KV_TYPES) == 11


def test_an_unknown_type_has_no_size() -> None:
    with pytest.raises(ValueError, match="the unknown type 4242"):
        tensor_bytes(4242, (32,))


def test_a_row_is_a_whole_number_of_blocks() -> None:
    with pytest.raises(ValueError, match="rows of 33 elements, .* the 32 in a block of q4_0"):
        tensor_bytes(2, (33, 32))
