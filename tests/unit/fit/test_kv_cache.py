"""Bytes of the KV cache, by the figures of ../shared/facts/models-and-hub.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from corral.catalog.profile import SplitMode
from corral.fit.devices import HOST, devices
from corral.fit.kv_cache import cells_per_slot, kv_bytes
from tests.unit.fit_samples import (
    AIR,
    DEEPSEEK,
    DENSE,
    FLASH,
    GLM,
    LLAMA_CPP,
    placement,
    profile,
    shape_of,
)

# Bytes for one token in f16.
F16 = {DENSE: 62464, AIR: 188416, GLM: 376832, FLASH: 54144, DEEPSEEK: 69120}
# Bytes of 32 elements.
BLOCK_BYTES = {
    "f32": 128, "f16": 64, "bf16": 64, "q8_0": 34, "q5_1": 24, "q5_0": 22, "q4_1": 20,
    "q4_0": 18, "iq4_nl": 18, "q6_0": 26,
}  # fmt: skip


def held(
    name: str,
    *,
    gpus: Sequence[int] = (1,),
    mode: SplitMode | None = None,
    placed: dict[str, Any] | None = None,
    **asked: Any,
) -> dict[int, int]:
    shape = shape_of(name)
    rules = devices(
        placement(**placed or {}), blocks=shape.blocks, gpu_memory_mib=gpus, split_mode=mode
    )
    return dict(kv_bytes(shape, profile(**asked), rules, LLAMA_CPP))


def per_token(name: str, kv_type: str) -> int:
    found = held(name, context_tokens_per_slot=256, kv_type_k=kv_type, kv_type_v=kv_type)
    assert found[0] % 256 == 0
    return found[0] // 256


@pytest.mark.parametrize("name", F16)
@pytest.mark.parametrize("kv_type", BLOCK_BYTES)
def test_a_token_takes_what_is_published(name: str, kv_type: str) -> None:
    assert per_token(name, kv_type) == F16[name] * BLOCK_BYTES[kv_type] // 64


@pytest.mark.parametrize(
    ("name", "q8_0", "q4_0"),
    [(DENSE, 33184, 17568), (AIR, 100096, 52992), (GLM, 200192, 105984), (FLASH, 28764, 15228)],
)
def test_the_published_figures_of_quantized_caches_are_met(name: str, q8_0: int, q4_0: int) -> None:
    assert (per_token(name, "q8_0"), per_token(name, "q4_0")) == (q8_0, q4_0)


def test_iks_q8_kv_takes_a_byte_an_element_and_eight_a_row() -> None:
    assert per_token(DENSE, "q8_KV") == 61 * 2 * (256 + 8)


def test_keys_and_values_may_differ_in_type() -> None:
    found = held(AIR, kv_type_k="q8_0", kv_type_v="q4_0")
    assert found[0] == 32768 * (100096 + 52992) // 2


@pytest.mark.parametrize(
    ("tokens", "cells"), [(1, 256), (256, 256), (257, 512), (32768, 32768), (5000, 5120)]
)
def test_a_slots_context_is_rounded_up_to_256_cells(tokens: int, cells: int) -> None:
    assert cells_per_slot(profile(context_tokens_per_slot=tokens)) == cells


def test_every_slot_has_its_own_rounded_part() -> None:
    assert held(DENSE, context_tokens_per_slot=1000, slots=3) == {0: 3 * 1024 * 62464}


def test_latent_attention_keeps_keys_only() -> None:
    assert [shape_of(name).kv_widths(0) for name in (FLASH, DENSE)] == [(576, 0), (256, 256)]
    of_keys = held(FLASH, kv_type_k="q8_0", kv_type_v="f16")
    assert of_keys == held(FLASH, kv_type_k="q8_0", kv_type_v="q8_0")


def test_drafting_adds_the_cache_of_the_mtp_block() -> None:
    layer = held(AIR)[0] // 46
    assert held(AIR, mtp_draft_tokens=1)[0] == 47 * layer


def test_the_cache_is_where_its_layer_is() -> None:
    layer = 32768 * 62464 // 61
    assert held(DENSE, placed={"gpu_layers": 11}) == {HOST: 51 * layer, 0: 10 * layer}
    assert held(DENSE, gpus=(10, 10)) == {0: 31 * layer, 1: 30 * layer}


def test_experts_on_the_host_leave_the_cache_on_the_gpu() -> None:
    assert held(AIR, placed={"experts_on_cpu": True}) == held(AIR)


def test_a_cache_kept_off_the_gpus_is_on_the_host() -> None:
    assert held(AIR, kv_on_gpu=False) == {HOST: 32768 * 188416}


def test_modes_that_cut_matrices_cut_the_cache() -> None:
    whole = 32768 * 62464
    assert held(DENSE, gpus=(3, 1), mode="row") == {0: whole * 3 // 4, 1: whole // 4}
    on_host = held(DENSE, gpus=(3, 1), mode="row", kv_on_gpu=False)
    assert on_host == {HOST: whole}


def test_a_type_whose_blocks_do_not_divide_a_row_is_told() -> None:
    narrow = replace(shape_of(DENSE), key_length=40, kv_heads=(1,) * 61)
    rules = devices(placement(), blocks=61, gpu_memory_mib=[1])
    with pytest.raises(ValueError, match="rows of 40 elements"):
        kv_bytes(narrow, profile(kv_type_k="q8_0"), rules, LLAMA_CPP)
