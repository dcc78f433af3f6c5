"""Dimensions from a header's keys: what is missing or unknown is named, weights stay exact."""

from __future__ import annotations

from typing import Any

import pytest

from corral.fit.estimate import Need, estimate
from corral.fit.gguf import ArrayOf, Header, Value
from corral.fit.model import model_file
from corral.fit.shape import UnknownShapeError, read_shape
from tests.unit.fit_samples import (
    AIR,
    DENSE,
    FLASH,
    H200_MIB,
    header,
    model,
    placement,
    profile,
    shape_of,
    unknown_model,
)


def changed(name: str, **changes: Any) -> Header:
    """A header with keys of its architecture changed; None takes one out."""
    real = header(name)
    arch = real.metadata["general.architecture"]
    keys = {f"{arch}.{key.replace('__', '.')}": value for key, value in changes.items()}
    metadata: dict[str, Value] = {k: v for k, v in real.metadata.items() if k not in keys}
    metadata |= {key: value for key, value in keys.items() if value is not None}
    return Header(3, metadata, real.tensors, real.data_start_bytes, 32)


def sentence(of: Header) -> str:
    with pytest.raises(UnknownShapeError) as caught:
        read_shape(of)
    return str(caught.value)


def test_the_dimensions_of_real_headers_are_read() -> None:
    air, dense = shape_of(AIR), shape_of(DENSE)
    assert (air.arch, air.blocks, air.layers, air.heads) == ("glm4moe", 47, 46, 96)
    assert (air.kv_heads, air.key_length, air.latent) == ((8,) * 47, 128, False)
    assert (air.experts_used, air.expert_feed_forward) == (8, 1408)
    assert (air.vocabulary, air.train_context_tokens) == (151552, 131072)
    assert (dense.arch, dense.blocks, dense.layers, dense.heads) == ("glm4", 61, 61, 48)
    assert (dense.kv_heads, dense.experts_used) == ((2,) * 61, 0)
    assert (shape_of(FLASH).latent, shape_of(FLASH).key_length) == (True, 576)


def test_heads_may_be_given_for_each_block() -> None:
    heads = (4,) * 10 + (2,) * 51
    assert read_shape(changed(DENSE, attention__head_count_kv=heads)).kv_heads == heads


def test_heads_for_too_few_blocks_are_told() -> None:
    of = changed(DENSE, attention__head_count_kv=(2,) * 60)
    assert sentence(of) == (
        'architecture "glm4": its header lacks glm4.attention.head_count_kv for each block'
    )


def test_what_a_header_leaves_out_follows_from_the_rest() -> None:
    left_out = {f"attention__{key}": None for key in ("key_length", "value_length")}
    found = read_shape(changed(DENSE, **left_out, attention__head_count_kv=None))
    assert (found.key_length, found.value_length, found.kv_heads[0]) == (128, 128, 48)


def test_a_length_for_each_block_counts_as_the_largest() -> None:
    assert read_shape(changed(AIR, feed_forward_length=(10, 30, 20))).feed_forward == 30


def test_the_vocabulary_is_the_list_of_words_or_else_its_own_key() -> None:
    counted = changed(DENSE, vocab_size=5)
    assert isinstance(counted.metadata["tokenizer.ggml.tokens"], ArrayOf)
    assert read_shape(counted).vocabulary == 151552
    del counted.metadata["tokenizer.ggml.tokens"]
    assert read_shape(counted).vocabulary == 5


def test_every_missing_key_is_named() -> None:
    of = changed(AIR, embedding_length=None, expert_used_count=None, context_length=None)
    assert sentence(of) == (
        'architecture "glm4moe": its header lacks glm4moe.embedding_length, '
        "glm4moe.expert_used_count, glm4moe.context_length"
    )


def test_a_header_without_an_architecture_is_told() -> None:
    assert "lacks general.architecture" in sentence(Header(3, {}, (), 32, 32))


def test_a_value_of_the_wrong_kind_counts_as_missing() -> None:
    of = changed(AIR, block_count="47", embedding_length=-1)
    assert "lacks glm4moe.block_count, glm4moe.embedding_length" in sentence(of)


def test_an_architecture_that_is_not_known_is_told_with_those_that_are() -> None:
    real = header(DENSE)
    metadata = {key.replace("glm4.", "llama."): value for key, value in real.metadata.items()}
    metadata["general.architecture"] = "llama"
    said = sentence(Header(3, metadata, real.tensors, 32, 32))
    known = "deepseek2, glm-dsa, glm4, glm4moe, glm5-next"
    assert said == f'architecture "llama" is unknown to Corral (known: {known})'


@pytest.mark.parametrize("blocks", [47, 99])
def test_as_many_mtp_blocks_as_blocks_are_impossible(blocks: int) -> None:
    said = sentence(changed(AIR, nextn_predict_layers=blocks))
    assert said == f"{blocks} MTP blocks of 47 blocks"


def test_weights_of_an_unknown_model_are_exact_and_nothing_else_is_counted() -> None:
    strange = unknown_model()
    assert 'architecture "glm9": its header lacks glm9.' in strange.unknown
    placed = placement(experts_on_cpu=True)
    found = estimate(strange, profile(), placed, gpu_memory_mib=[H200_MIB])
    assert found.unknown == strange.unknown
    # The name of its MTP block is not known either, so all 47 blocks count.
    known = estimate(model(AIR), profile(mtp_draft_tokens=1), placed, gpu_memory_mib=[H200_MIB])
    assert found.gpus == (Need(weights_bytes=known.gpus[0].weights_bytes),)
    assert found.host == Need(weights_bytes=known.host.weights_bytes)


def test_a_model_file_of_a_known_header_says_so() -> None:
    assert (model(AIR).unknown, model_file([header(AIR)]).shape) == ("", shape_of(AIR))
