"""Whole pages of CUDA where each part of a tensor is allocated alone."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from corral.catalog.profile import SplitMode
from corral.fit.allocations import made_rounding_bytes, rounding_bytes
from corral.fit.layer_split import layout
from tests.unit.fit_samples import AIR, H200_MIB, IK, MIB, model, placement, profile, tensor

MODEL = model(AIR)


def rounding(mode: SplitMode, *names: str) -> Mapping[int, int]:
    """Of these tensors of 51 MiB, and of the caches."""
    assert MODEL.shape
    asked = profile(split_mode=mode, kv_type_k="q8_0", kv_type_v="q8_0")
    rules = layout(MODEL, asked, placement(), engine=IK, gpu_memory_mib=[H200_MIB] * 2)
    tensors = [tensor(name, 1024, 51 * 256) for name in names]
    return rounding_bytes(tensors, MODEL.shape, asked, rules, IK)


def test_each_part_of_a_matrix_and_of_a_cache_ends_in_a_page_of_its_own() -> None:
    caches = 46 * 2 * MIB
    assert rounding("graph") == {0: caches, 1: caches}
    assert rounding("graph", "blk.1.attn_q.weight") == {0: caches + MIB // 2, 1: caches + MIB // 2}


def test_what_is_smaller_than_a_mib_shares_its_page() -> None:
    assert MODEL.shape
    asked = profile(split_mode="graph", kv_on_gpu=False)
    rules = layout(MODEL, asked, placement(), engine=IK, gpu_memory_mib=[H200_MIB] * 2)
    small = [tensor("blk.1.attn_k.weight", 1024, 511)]
    assert not sum(rounding_bytes(small, MODEL.shape, asked, rules, IK).values())


@pytest.mark.parametrize("mode", ["layer", "tensor"])
def test_other_modes_allocate_all_at_once(mode: SplitMode) -> None:
    assert rounding(mode, "blk.1.attn_q.weight") == {}


def test_what_is_made_at_load_ends_in_pages_of_its_own_on_its_gpu() -> None:
    rules = layout(MODEL, profile(), placement(), engine=IK, gpu_memory_mib=[H200_MIB] * 2)
    small = tensor("blk.1.attn_k_b.weight", 1024, 255)
    large = tensor("blk.40.attn_k_b.weight", 1024, 51 * 256)
    assert made_rounding_bytes([small, large], rules) == {0: 0, 1: MIB}
