"""Tensor types of ggml: the size of a tensor in a file and in memory.

From the type tables of llama.cpp (ggml.h, ggml.c and ggml-common.h as packed by
llama_cpp_python 0.3.36) and of ik_llama.cpp (the same files as packed by ik_llama_cpp_python
0.1.5). Without ik_llama.cpp's types that only exist during a computation, and without its i2_s,
whose size is not a sum of rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TensorType:
    """Rows consist of blocks of ``block_elements``; ``row_meta_bytes`` are added to each row."""

    name: str
    block_elements: int
    block_bytes: int
    row_meta_bytes: int = 0


_MAINLINE = {
    0: TensorType("f32", 1, 4),
    1: TensorType("f16", 1, 2),
    2: TensorType("q4_0", 32, 18),
    3: TensorType("q4_1", 32, 20),
    6: TensorType("q5_0", 32, 22),
    7: TensorType("q5_1", 32, 24),
    8: TensorType("q8_0", 32, 34),
    9: TensorType("q8_1", 32, 36),
    10: TensorType("q2_K", 256, 84),
    11: TensorType("q3_K", 256, 110),
    12: TensorType("q4_K", 256, 144),
    13: TensorType("q5_K", 256, 176),
    14: TensorType("q6_K", 256, 210),
    15: TensorType("q8_K", 256, 292),
    16: TensorType("iq2_xxs", 256, 66),
    17: TensorType("iq2_xs", 256, 74),
    18: TensorType("iq3_xxs", 256, 98),
    19: TensorType("iq1_s", 256, 50),
    20: TensorType("iq4_nl", 32, 18),
    21: TensorType("iq3_s", 256, 110),
    22: TensorType("iq2_s", 256, 82),
    23: TensorType("iq4_xs", 256, 136),
    24: TensorType("i8", 1, 1),
    25: TensorType("i16", 1, 2),
    26: TensorType("i32", 1, 4),
    27: TensorType("i64", 1, 8),
    28: TensorType("f64", 1, 8),
    29: TensorType("iq1_m", 256, 56),
    30: TensorType("bf16", 1, 2),
    34: TensorType("tq1_0", 256, 54),
    35: TensorType("tq2_0", 256, 66),
    39: TensorType("mxfp4", 32, 17),
    40: TensorType("nvfp4", 64, 36),
    41: TensorType("q1_0", 128, 18),
    42: TensorType("q2_0", 64, 18),
}

_IK = {
    31: TensorType("q4_0_4x4", 32, 18),
    32: TensorType("q4_0_4x8", 32, 18),
    33: TensorType("q4_0_8x8", 32, 18),
    133: TensorType("q6_0", 32, 26),
    134: TensorType("iq1_bn", 64, 13, 2),
    135: TensorType("iq2_bn", 64, 16, 4),
    137: TensorType("iq2_k", 256, 76),
    138: TensorType("iq3_k", 256, 110),
    139: TensorType("iq4_k", 256, 144),
    140: TensorType("iq5_k", 256, 176),
    141: TensorType("iq6_k", 256, 212),
    144: TensorType("iq4_ks", 256, 136, 4),
    145: TensorType("iq2_ks", 256, 70, 2),
    146: TensorType("iq4_kss", 256, 128, 4),
    151: TensorType("q8_KV", 32, 32, 8),
    152: TensorType("iq5_ks", 256, 168, 4),
    153: TensorType("iq2_kt", 256, 68, 4),
    154: TensorType("iq3_kt", 256, 100, 4),
    155: TensorType("iq4_kt", 256, 128, 4),
    156: TensorType("iq3_ks", 256, 102, 2),
    157: TensorType("iq2_kl", 256, 86, 2),
    158: TensorType("iq1_kt", 256, 56, 4),
    202: TensorType("q4_0_r8", 32, 18),
    206: TensorType("q5_0_r4", 32, 22),
    208: TensorType("q8_0_r8", 32, 34),
    210: TensorType("q2_k_r4", 256, 84),
    211: TensorType("q3_k_r4", 256, 110),
    212: TensorType("q4_k_r4", 256, 144),
    213: TensorType("q5_k_r4", 256, 176),
    214: TensorType("q6_k_r4", 256, 210),
    216: TensorType("iq2_xxs_r4", 256, 66),
    217: TensorType("iq2_xs_r4", 256, 74),
    218: TensorType("iq3_xxs_r4", 256, 98),
    219: TensorType("iq1_s_r4", 32, 6, 2),
    220: TensorType("iq4_nl_r4", 32, 18),
    221: TensorType("iq3_s_r4", 256, 110),
    222: TensorType("iq2_s_r4", 256, 82),
    223: TensorType("iq4_xs_r8", 256, 136),
    229: TensorType("iq1_m_r4", 32, 7, 2),
    230: TensorType("bf16_r16", 1, 2),
    233: TensorType("q6_0_r4", 32, 26),
    335: TensorType("iq2_bn_r4", 64, 16, 4),
    337: TensorType("iq2_k_r4", 256, 76),
    338: TensorType("iq3_k_r4", 256, 110),
    339: TensorType("iq4_k_r4", 256, 144),
    340: TensorType("iq5_k_r4", 256, 176),
    344: TensorType("iq4_ks_r4", 256, 136, 4),
    352: TensorType("iq5_ks_r4", 256, 168, 4),
    397: TensorType("q8_k_r16", 256, 258),
    398: TensorType("q8_KV_r8", 32, 32, 4),
    399: TensorType("q8_k_r8", 256, 258),
}

TYPES: Mapping[int, TensorType] = _MAINLINE | _IK

_KV_TYPE_IDS = (0, 1, 30, 8, 7, 6, 3, 2, 20, 133, 151)

KV_TYPES: Mapping[str, int] = {TYPES[type_id].name: type_id for type_id in _KV_TYPE_IDS}
"""Name of a KV cache type -> its id; q6_0 and q8_KV are ik_llama.cpp's."""


def tensor_bytes(type_id: int, shape: Sequence[int]) -> int:
    """Bytes of a tensor; ``shape[0]`` is the length of a row (ggml's ``ne``).

    Raises ValueError for an unknown type, and for rows that are not a whole number of blocks.
    """
    kind = TYPES.get(type_id)
    if kind is None:
        raise ValueError(f"the unknown type {type_id}")
    blocks, rest = divmod(shape[0], kind.block_elements)
    if rest:
        raise ValueError(
            f"rows of {shape[0]} elements, not a multiple of "
            f"the {kind.block_elements} in a block of {kind.name}"
        )
    return (blocks * kind.block_bytes + kind.row_meta_bytes) * math.prod(shape[1:])
