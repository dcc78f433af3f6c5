"""Memory of ik_llama.cpp by its own rules, by figures of its sources."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from corral.fit.compute import scores_pool_bytes
from corral.fit.devices import HOST
from corral.fit.estimate import Estimate, estimate
from corral.fit.latent import made_at_load
from corral.fit.layer_split import LayerSizes, host_expert_blocks, layout
from corral.fit.model import ModelFile, model_file
from lab.model_headers import DEEPSEEK_V2_5, GLM_4_7_FLASH
from tests.headers import made_header
from tests.unit.fit_samples import (
    AIR,
    FLASH,
    IK,
    MIB,
    header,
    model,
    placement,
    profile,
    shape_of,
    tensor,
)

CARD_MIB = 24564
OLD_DEEPSEEK = replace(
    DEEPSEEK_V2_5, key_length_mla=0, value_length_mla=0, kv_heads=128, key_length=192,
    value_length=128,
)  # fmt: skip


def flash() -> ModelFile:
    """GLM-4.7-Flash as most files have it: without its MTP block."""
    return model_file([made_header(replace(GLM_4_7_FLASH, blocks=47, mtp_blocks=0))])


def on_one_gpu(file: ModelFile, **asked: object) -> Estimate:
    return estimate(
        file, profile(**asked), placement(), kind="ik_llama.cpp", gpu_memory_mib=[CARD_MIB]
    )


def test_prompts_expand_the_whole_cache_of_latent_attention() -> None:
    """K and V of each head in f32, and again in f16: 3360 MiB at 65536."""
    (gpu,) = on_one_gpu(flash(), context_tokens_per_slot=65536).gpus
    assert gpu.compute_bytes > 3360 * MIB
    (short,) = on_one_gpu(flash(), context_tokens_per_slot=8192).gpus
    assert short.compute_bytes < gpu.compute_bytes / 4


@pytest.mark.parametrize(("most_mib", "part"), [(2048, 2), (600, 4), (64, 20)])
def test_attention_max_batch_expands_a_part_of_the_heads_at_a_time(
    most_mib: int, part: int
) -> None:
    context = 65536
    (whole,) = on_one_gpu(flash(), context_tokens_per_slot=context).gpus
    (cut,) = on_one_gpu(
        flash(), context_tokens_per_slot=context, attention_max_batch_mib=most_mib
    ).gpus
    # kv_f32, V, K and the f16 product of cuBLAS.
    saved = (2240 + 640 + 480 + 1120) * MIB * (part - 1) / part
    logits = 154880 * 512 * 4
    assert cut.compute_bytes >= max(whole.compute_bytes - saved - MIB, logits)
    assert cut.compute_bytes <= max(whole.compute_bytes - saved, logits) + 1400 * MIB
    assert cut.compute_bytes < whole.compute_bytes


@pytest.mark.parametrize(
    ("asked", "kv_mib"),
    [
        ({}, 1692),
        ({"mla_mode": 1}, 1692),
        ({"mla_mode": 0}, 30080),
        ({"mla_mode": 1, "flash_attention": False}, 1692 + 1504),
        ({"mla_mode": 3, "flash_attention": False}, 1692),
    ],
)
def test_the_cache_is_that_of_the_mode(asked: dict[str, object], kv_mib: int) -> None:
    assert on_one_gpu(flash(), **asked).gpus[0].kv_bytes == kv_mib * MIB


def test_the_whole_of_kv_b_is_made_at_load_and_stays() -> None:
    file = flash()
    (own,) = on_one_gpu(file).gpus
    (mode_1,) = on_one_gpu(file, mla_mode=1).gpus
    assert (own.weights_bytes - mode_1.weights_bytes) / MIB == pytest.approx(218.5, abs=0.1)


@pytest.mark.parametrize(
    ("asked", "pools_mib"),
    [
        ({"mla_mode": 1, "flash_attention": False}, 320 + 10),
        ({"mla_mode": 0, "flash_attention": False}, 320 + 5),
        ({"mla_mode": 2, "ubatch_tokens": 64}, 2 * 40 + 1.25),
        ({"mla_mode": 1}, 0),
        ({}, 0),
    ],
)
def test_scores_are_in_pools_too_where_attention_stores_them(
    asked: dict[str, Any], pools_mib: float
) -> None:
    """Of 20 heads, 512 tokens and 16384 cells: 320 MiB, as measured with mla_mode 1."""
    wanted = profile(**{"context_tokens_per_slot": 16384, "ubatch_tokens": 512, **asked})
    assert scores_pool_bytes(shape_of(FLASH), wanted, IK) == pools_mib * MIB


def test_a_file_from_before_the_mla_keys_is_made_latent() -> None:
    file = model_file([made_header(OLD_DEEPSEEK)])
    host = estimate(
        file,
        profile(context_tokens_per_slot=16384),
        placement(gpu_layers=0),
        kind="ik_llama.cpp",
        gpu_memory_mib=[],
    ).host
    assert host.kv_bytes == 1080 * MIB
    mainline = estimate(
        file,
        profile(context_tokens_per_slot=16384),
        placement(gpu_layers=0),
        gpu_memory_mib=[],
    ).host
    assert mainline.kv_bytes == 76800 * MIB


def test_parts_made_of_unquantized_weights_keep_their_type() -> None:
    """Of bf16 and bf16 bf16 is made; of two types q8_0."""
    shape = shape_of(FLASH)
    assert shape.mla
    k = tensor("blk.0.attn_k_b.weight", 192, 512, 20, type_id=30)
    v = tensor("blk.0.attn_v_b.weight", 512, 256, 20, type_id=30)
    (same,) = made_at_load([k, v], shape.mla, 20, 3)
    (mixed,) = made_at_load([k, replace(v, type_id=1)], shape.mla, 20, 3)
    assert (same.type_id, mixed.type_id) == (30, 8)


def test_slots_share_one_cache_which_attention_sees_whole() -> None:
    one = on_one_gpu(flash(), context_tokens_per_slot=65536).gpus[0]
    four = on_one_gpu(flash(), context_tokens_per_slot=16384, slots=4).gpus[0]
    assert (four.kv_bytes, four.compute_bytes) == (one.kv_bytes, one.compute_bytes)


def test_experts_in_host_memory_are_divided_among_the_gpus() -> None:
    """GLM-4.5-Air, 24 layers, two cards of 24 GB: 20180 and 20289 MiB, by the issue's own count."""
    found = estimate(
        model(AIR),
        profile(context_tokens_per_slot=16384, kv_type_k="q8_0", kv_type_v="q8_0"),
        placement(cpu_moe_layers=24, tensor_split=(1.0, 1.0)),
        kind="ik_llama.cpp",
        gpu_memory_mib=[CARD_MIB] * 2,
    )
    assert [round(gpu.weights_bytes / MIB) for gpu in found.gpus] == [20180, 20288]


def test_the_last_layers_of_each_gpu_keep_their_experts_on_the_host() -> None:
    asked = placement(cpu_moe_layers=3)
    assert host_expert_blocks(asked, (0, 0, 0, 0, 1, 1), 2) == {2, 3, 5}
    assert host_expert_blocks(placement(cpu_moe_layers=9), (0, 0, 0, 1), 2) == {0, 1, 2, 3}
    # Halves are rounded up, and the first GPU that is furthest above its share gives one back.
    assert host_expert_blocks(placement(cpu_moe_layers=1), (0, 1), 2) == {1}


def test_with_one_gpu_the_layers_count_from_the_front() -> None:
    assert host_expert_blocks(placement(cpu_moe_layers=2), (0, 0, 0), 1) == {0, 1}


def test_layers_are_divided_by_size() -> None:
    sizes = LayerSizes((10, 10, 10, 50, 50, 1), 0.0)
    assert sizes.devices((0.5, 0.5), 0, with_output=True) == [0, 0, 0, 0, 1, 1]
    assert sizes.devices((0.5, 0.5), 1, with_output=False) == [1, 0, 0, 0, 1, 1]


def test_gpu_layers_leave_the_output_layer_for_last() -> None:
    file = model(AIR)
    blocks = file.blocks
    for count, first, output in ((blocks, 0, HOST), (blocks - 1, HOST, HOST), (blocks + 1, 0, 0)):
        rules = layout(
            file, profile(), placement(gpu_layers=count), engine=IK, gpu_memory_mib=[CARD_MIB]
        )
        assert (rules.of_blocks[0], rules.of_output) == (first, output)


def test_overrides_win_over_experts_in_host_memory() -> None:
    asked = placement(cpu_moe_layers=2, tensor_overrides=(r"blk\.0\.ffn_up_exps=CUDA0",))
    rules = layout(model(AIR), profile(), asked, engine=IK, gpu_memory_mib=[CARD_MIB])
    assert rules.of_tensor("blk.0.ffn_up_exps.weight") == 0
    assert rules.of_tensor("blk.1.ffn_up_exps.weight") == HOST


def test_the_header_of_a_real_model_needs_no_latent_keys() -> None:
    assert model_file([header(AIR)]).shape == shape_of(AIR)
    assert shape_of(AIR).mla is None
