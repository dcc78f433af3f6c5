"""GLM-5, 5.1 and 5.2: latent attention with indexers (glm-dsa), by llama-fit-params' own count."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from corral.catalog.entries import EngineKind
from corral.fit.compute import sort_pool_bytes
from corral.fit.estimate import Estimate, estimate
from corral.fit.gguf import Header
from corral.fit.model import ModelFile, model_file
from tests.unit.fit_samples import (
    AIR,
    H200_MIB,
    IK,
    LLAMA_CPP,
    MIB,
    SPARSE,
    SPARSE_LONG,
    header,
    model,
    placement,
    profile,
    shape_of,
)


def held(file: ModelFile, kind: EngineKind = "llama.cpp", **asked: Any) -> Estimate:
    return estimate(file, profile(**asked), placement(), kind=kind, gpu_memory_mib=[H200_MIB] * 4)


def kv_mib(found: Estimate) -> float:
    return sum(gpu.kv_bytes for gpu in found.gpus) / MIB


@pytest.mark.parametrize(
    ("kv_type", "context", "mib"), [("q8_0", 131072, 6324), ("f16", 32768, 2976)]
)
def test_the_caches_of_glm_5_2_are_those_that_the_engine_counts(
    kv_type: str, context: int, mib: int
) -> None:
    types: dict[str, Any] = {"kv_type_k": kv_type, "kv_type_v": kv_type}
    found = held(model(SPARSE_LONG), context_tokens_per_slot=context, **types)
    assert int(kv_mib(found)) == mib


def test_glm_5_has_an_indexer_in_each_block_and_5_2_in_one_of_four() -> None:
    every, shared = shape_of(SPARSE).indexer, shape_of(SPARSE_LONG).indexer
    assert every
    assert shared
    assert every.in_blocks == (True,) * 78
    assert [block for block, own in enumerate(shared.in_blocks) if own][:5] == [0, 1, 2, 6, 10]
    assert sum(shared.in_blocks) == 21


def test_a_file_may_name_the_blocks_with_indexers() -> None:
    whole = header(SPARSE_LONG)
    key = "glm-dsa.attention.indexer.types"
    types = (1,) + (0,) * 77
    named = model_file([replace_keys(whole, {key: types})])
    assert named.shape
    assert named.shape.indexer
    assert sum(named.shape.indexer.in_blocks) == 1
    all_of_them = model_file([replace_keys(whole, {key: 1})])
    assert all_of_them.shape == replace(shape_of(SPARSE), train_context_tokens=1048576)


def replace_keys(whole: Header, keys: dict[str, int | tuple[int, ...]]) -> Header:
    return replace(whole, metadata={**whole.metadata, **keys})


def test_drafts_have_latent_attention_without_an_indexer() -> None:
    plain, drafting = (kv_mib(held(model(SPARSE), mtp_draft_tokens=tokens)) for tokens in (None, 2))
    assert drafting - plain == 36


def test_ik_attends_to_all_tokens_and_keeps_no_keys_of_indexers() -> None:
    found = held(model(SPARSE), "ik_llama.cpp", context_tokens_per_slot=16384)
    assert kv_mib(found) == 18 * 78
    assert found.gpus[0].compute_bytes > 2804 * MIB


@pytest.mark.parametrize(("context", "gpus", "mib"), [(65536, 1, 152), (65536, 2, 572)])
def test_the_indexer_s_mask_is_an_input_of_each_batch(context: int, gpus: int, mib: int) -> None:
    """The host's compute buffer, as the server's log said it on one and on two H200s."""
    found = estimate(
        model(SPARSE),
        profile(context_tokens_per_slot=context),
        placement(),
        gpu_memory_mib=[H200_MIB] * gpus,
    )
    assert found.host.compute_bytes // MIB == mib


@pytest.mark.parametrize(("context", "pool_mib"), [(30208, 354), (65536, 384), (131072, 384)])
def test_scores_are_sorted_in_parts_of_64_mib(context: int, pool_mib: int) -> None:
    """Measured after prompts of 30000 and 60000 tokens: 348 to 350, and 384."""
    asked = profile(context_tokens_per_slot=context)
    assert sort_pool_bytes(shape_of(SPARSE), asked, LLAMA_CPP) // MIB == pool_mib
    assert sort_pool_bytes(shape_of(SPARSE), asked, IK) == 0
    assert sort_pool_bytes(shape_of(AIR), asked, LLAMA_CPP) == 0
