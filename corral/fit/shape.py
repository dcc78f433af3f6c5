"""The dimensions of a model that KV and compute sizes depend on, from its header."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corral.fit.gguf import ArrayOf, Header, Value

# Architectures whose KV cache is computed here; others may share memory between layers, use a
# sliding window or keep a state instead.
KNOWN_ARCHITECTURES = ("deepseek2", "glm-dsa", "glm4", "glm4moe", "glm5-next")
# glm-dsa.cpp of llama.cpp at 0c1e57098bba: GLM-5 and 5.1 have an indexer in each block; without a
# key for it, models with this context have one in the first two, then in the first of each four.
_SHARED_INDEXERS_ARCHITECTURE, _SHARED_INDEXERS_TOKENS = "glm-dsa", 1048576
_FIRST_INDEXERS, _INDEXER_PERIOD = 2, 4
_KEPT_OF_POOLED = 3
# Of queries, keys and values.
_CONVOLUTIONS = 3


class UnknownShapeError(Exception):
    """The header lacks the dimensions for KV and compute sizes. The text is one sentence."""


@dataclass(frozen=True, slots=True)
class Latent:
    """Dimensions of latent attention (MLA), in elements.

    + rank: of K and V together, compressed; + rope: the part of a key that has the position
    + key, value: of one head, not compressed
    """

    rank: int
    rope: int
    key: int
    value: int


@dataclass(frozen=True, slots=True)
class Indexer:
    """What chooses the tokens of sparse attention; ``width``: elements that it keeps of a token.

    + in_blocks: whether each block, without MTP blocks, has one with keys of its own
    + pool: tokens that are chosen together, 1 where each is chosen alone
    """

    width: int
    in_blocks: tuple[bool, ...]
    pool: int = 1

    @property
    def key(self) -> int:
        """Elements of a key."""
        return self.width // (_KEPT_OF_POOLED if self.pool > 1 else 1)


@dataclass(frozen=True, slots=True)
class Recurrent:
    """Blocks of linear attention (KDA): a state of fixed size instead of a KV cache.

    + head: elements of a head; + kept: elements of f32 that a block keeps of one sequence
    + in_blocks: whether each block, without MTP blocks, is one
    """

    head: int
    kept: int
    in_blocks: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """Dimensions in elements; ``blocks`` counts the MTP blocks, which come last.

    + latent: the file's keys ask for a compressed cache; + mla: None without latent attention
    + indexer: of sparse attention (DSA), None without it
    + recurrent: blocks of linear attention, None without any
    + streams: vectors of the residual stream for each token
    """

    arch: str
    blocks: int
    mtp_blocks: int
    embedding: int
    vocabulary: int
    heads: int
    kv_heads: tuple[int, ...]
    key_length: int
    value_length: int
    latent: bool
    mla: Latent | None
    indexer: Indexer | None
    recurrent: Recurrent | None
    streams: int
    feed_forward: int
    experts_used: int
    expert_feed_forward: int
    train_context_tokens: int

    @property
    def layers(self) -> int:
        """Blocks of the model itself, without MTP."""
        return self.blocks - self.mtp_blocks

    @property
    def attending_block(self) -> int:
        """The first block with a KV cache."""
        return next((block for block, heads in enumerate(self.kv_heads) if heads), 0)

    def is_recurrent(self, block: int) -> bool:
        """Whether a block keeps a state of fixed size for each sequence."""
        return bool(self.recurrent and block < self.layers and self.recurrent.in_blocks[block])

    def kv_widths(self, block: int) -> tuple[int, int]:
        """Elements of K and of V for one token in one block; latent attention keeps only K."""
        heads = self.kv_heads[block]
        return heads * self.key_length, 0 if self.latent else heads * self.value_length


def read_shape(header: Header) -> Shape:
    """The dimensions that a header states.

    Raises UnknownShapeError naming the architecture, and the keys that are missing.
    """
    keys = _Keys(header.metadata)
    shape = _shape(keys)
    if keys.missing:
        listed = ", ".join(keys.missing)
        raise UnknownShapeError(f'architecture "{keys.arch}": its header lacks {listed}')
    if keys.arch not in KNOWN_ARCHITECTURES:
        known = ", ".join(KNOWN_ARCHITECTURES)
        raise UnknownShapeError(f'architecture "{keys.arch}" is unknown to Corral (known: {known})')
    if not 0 <= shape.mtp_blocks < shape.blocks:
        raise UnknownShapeError(f"{shape.mtp_blocks} MTP blocks of {shape.blocks} blocks")
    return shape


def _shape(keys: _Keys) -> Shape:
    blocks, heads = keys.number("block_count"), keys.number("attention.head_count")
    embedding = keys.number("embedding_length")
    key_length = keys.number("attention.key_length", embedding // heads if heads else 0)
    moe = bool(keys.number("expert_count", 0))
    value_length = keys.number("attention.value_length", key_length)
    kv_heads = keys.each("attention.head_count_kv", blocks, heads)
    layers = blocks - keys.number("nextn_predict_layers", 0)
    return Shape(
        arch=keys.arch,
        blocks=blocks,
        mtp_blocks=keys.number("nextn_predict_layers", 0),
        embedding=embedding,
        vocabulary=keys.vocabulary(),
        heads=heads,
        kv_heads=kv_heads,
        key_length=key_length,
        value_length=value_length,
        # llama.cpp: is_mla() of llama-hparams.cpp.
        latent=bool(keys.number("attention.key_length_mla", 0)),
        mla=_latent(keys, key_length, value_length),
        indexer=_indexer(keys, kv_heads[: max(layers, 0)]),
        recurrent=_recurrent(keys, heads, kv_heads[: max(layers, 0)]),
        streams=keys.number("hyper_connection.count", 1),
        feed_forward=keys.number("feed_forward_length"),
        experts_used=keys.number("expert_used_count") if moe else 0,
        expert_feed_forward=keys.number("expert_feed_forward_length") if moe else 0,
        train_context_tokens=keys.number("context_length"),
    )


def _latent(keys: _Keys, key_length: int, value_length: int) -> Latent | None:
    """Files from before key_length_mla state the lengths of one head under the usual keys."""
    rank = keys.number("attention.kv_lora_rank", 0)
    if not rank:
        return None
    return Latent(
        rank=rank,
        rope=keys.number("rope.dimension_count"),
        key=keys.number("attention.key_length_mla", 0) or key_length,
        value=keys.number("attention.value_length_mla", 0) or value_length,
    )


def _indexer(keys: _Keys, kv_heads: Sequence[int]) -> Indexer | None:
    width, layers = keys.number("attention.indexer.key_length", 0), len(kv_heads)
    if not width or not layers:
        return None
    is_long = keys.number("context_length") >= _SHARED_INDEXERS_TOKENS
    is_shared = is_long and keys.arch == _SHARED_INDEXERS_ARCHITECTURE
    usual = [not is_shared or _has_own_indexer(block) for block in range(layers)]
    stated = keys.flags("attention.indexer.types", layers)
    own = usual if stated is None else stated
    # llama-memory-hybrid-idx.cpp: of each token its key, its weight in a pool and the pool's key.
    pool = keys.number("attention.indexer.kpool", 1)
    return Indexer(
        width=width * (_KEPT_OF_POOLED if pool > 1 else 1),
        in_blocks=tuple(flag and bool(n) for flag, n in zip(own, kv_heads, strict=True)),
        pool=pool,
    )


def _recurrent(keys: _Keys, heads: int, kv_heads: Sequence[int]) -> Recurrent | None:
    """Source: n_embd_r and n_embd_s of llama-hparams.cpp; blocks without KV heads are recurrent."""
    head = keys.number("kda.head_dim", 0)
    if not head:
        return None
    inputs = max(keys.number("ssm.conv_kernel") - 1, 0)
    return Recurrent(
        head=head,
        kept=heads * head * (_CONVOLUTIONS * inputs + head),
        in_blocks=tuple(count == 0 for count in kv_heads),
    )


def _has_own_indexer(block: int) -> bool:
    return block < _FIRST_INDEXERS or (block - _FIRST_INDEXERS) % _INDEXER_PERIOD == 0


class _Keys:
    """Keys of one architecture; ``missing``: keys that were needed and absent."""

    def __init__(self, metadata: dict[str, Value]) -> None:
        self._metadata = metadata
        self.missing: list[str] = []
        arch = metadata.get("general.architecture")
        self.arch = arch if isinstance(arch, str) else ""
        if not self.arch:
            self.missing.append("general.architecture")

    def number(self, name: str, default: int | None = None) -> int:
        """A whole number, or the largest of one per block."""
        value = self._metadata.get(f"{self.arch}.{name}")
        if isinstance(value, tuple) and value and all(isinstance(v, int) for v in value):
            return max(int(v) for v in value)
        if isinstance(value, int) and value >= 0:
            return value
        if default is None:
            self.missing.append(f"{self.arch}.{name}")
        return default or 0

    def each(self, name: str, count: int, default: int) -> tuple[int, ...]:
        """A whole number for each of ``count`` blocks; one number stands for all."""
        value = self._metadata.get(f"{self.arch}.{name}")
        if isinstance(value, tuple):
            if len(value) == count and all(isinstance(v, int) for v in value):
                return tuple(int(v) for v in value)
            self.missing.append(f"{self.arch}.{name} for each block")
            return (0,) * count
        return (self.number(name, default),) * count

    def flags(self, name: str, count: int) -> tuple[bool, ...] | None:
        """One for each of ``count`` blocks, or one for all; None where it is not stated."""
        value = self._metadata.get(f"{self.arch}.{name}")
        if isinstance(value, tuple) and len(value) >= count:
            return tuple(bool(flag) for flag in value[:count])
        if isinstance(value, int):
            return (bool(value),) * count
        return None

    def vocabulary(self) -> int:
        """The number of tokens, by its own key or by the length of the list."""
        tokens = self._metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, ArrayOf):
            return tokens.count
        return self.number("vocab_size")
