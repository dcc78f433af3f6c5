"""Sizes and weights of the tiny model; the hash stream is the same everywhere."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

BLOCKS = 3
DENSE_BLOCKS = 1
WIDTH = 64
HEADS = 4
KV_HEADS = 2
# A multiple of every KV block size (32), and a size with flash attention kernels in CUDA.
HEAD_WIDTH = 64
DENSE_WIDTH = 128
EXPERT_WIDTH = 32
EXPERTS = 8
EXPERTS_USED = 2
SHARED_EXPERTS = 1

_SEED = "Tiny-GLM-MoE"

# This channel of the hidden state is positive for every token: embeddings set it and no block
# writes to it. Output rows of all tokens but printable ASCII are strongly negative on it, so that
# replies stay printable at any temperature, and never end before the token limit.
_CONSTANT_CHANNEL = 0
_UNPRINTABLE_WEIGHT = -100.0

Array = npt.NDArray[np.float32]


def tensors(printable: Sequence[bool]) -> Iterator[tuple[str, Array]]:
    """Name and values of every tensor, in file order; shapes are (rows, row length).

    + printable: for every token of the vocabulary, whether replies may contain it
    """
    embeddings = _random("token_embd.weight", (len(printable), WIDTH), gain=math.sqrt(WIDTH))
    embeddings[:, _CONSTANT_CHANNEL] = 1.0
    yield "token_embd.weight", embeddings
    for block in range(BLOCKS):
        for name, values in (*_attention(block), *_feed_forward(block)):
            yield f"blk.{block}.{name}", values
    yield "output_norm.weight", np.ones(WIDTH, np.float32)
    yield "output.weight", _output(printable)


def _output(printable: Sequence[bool]) -> Array:
    rows = _random("output.weight", (len(printable), WIDTH), gain=4.0)
    rows[:, _CONSTANT_CHANNEL] = 0.0
    unprintable = [token for token, shown in enumerate(printable) if not shown]
    rows[unprintable] = 0.0
    rows[unprintable, _CONSTANT_CHANNEL] = _UNPRINTABLE_WEIGHT
    return rows


def _attention(block: int) -> Iterator[tuple[str, Array]]:
    yield "attn_norm.weight", np.ones(WIDTH, np.float32)
    # Gain 2 for q and k makes attention sharp: with less, greedy replies soon repeat one character.
    for letter, heads, gain in (("q", HEADS, 2.0), ("k", KV_HEADS, 2.0), ("v", KV_HEADS, 1.0)):
        width = heads * HEAD_WIDTH
        yield f"attn_{letter}.weight", _random(f"{block}.{letter}", (width, WIDTH), gain=gain)
        yield f"attn_{letter}.bias", np.zeros(width, np.float32)
    yield "attn_output.weight", _into_residual(f"{block}.o", (WIDTH, HEADS * HEAD_WIDTH))
    yield "post_attention_norm.weight", np.ones(WIDTH, np.float32)


def _feed_forward(block: int) -> Iterator[tuple[str, Array]]:
    if block < DENSE_BLOCKS:
        yield from _gated(block, "", (), DENSE_WIDTH)
        return
    yield "ffn_gate_inp.weight", _random(f"{block}.router", (EXPERTS, WIDTH), gain=2.0)
    yield "exp_probs_b.bias", np.zeros(EXPERTS, np.float32)
    yield from _gated(block, "_exps", (EXPERTS,), EXPERT_WIDTH)
    yield from _gated(block, "_shexp", (), EXPERT_WIDTH * SHARED_EXPERTS)


def _gated(
    block: int, suffix: str, experts: tuple[int, ...], width: int
) -> Iterator[tuple[str, Array]]:
    for part in ("gate", "up"):
        values = _random(f"{block}.{part}{suffix}", (*experts, width, WIDTH), gain=1.0)
        yield f"ffn_{part}{suffix}.weight", values
    down = _into_residual(f"{block}.down{suffix}", (*experts, WIDTH, width))
    yield f"ffn_down{suffix}.weight", down


def _into_residual(label: str, shape: tuple[int, ...]) -> Array:
    values = _random(label, shape, gain=1.0)
    values[..., _CONSTANT_CHANNEL, :] = 0.0
    return values


def _random(label: str, shape: tuple[int, ...], *, gain: float) -> Array:
    """Uniform values that map an input of unit variance to variance `gain` squared."""
    stream = hashlib.shake_256(f"{_SEED}/{label}".encode()).digest(2 * math.prod(shape))
    uniform = np.frombuffer(stream, "<u2").astype(np.float32) / np.float32(32768) - np.float32(1)
    scale = np.float32(gain * math.sqrt(3 / shape[-1]))
    return (uniform * scale).reshape(shape)
