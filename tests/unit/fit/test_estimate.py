"""What an instance needs beside weights and KV: by engine, by slots, on several GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from corral.catalog.entries import EngineKind
from corral.engines.ik_llama_cpp.engine import RUNTIME_BYTES
from corral.fit.compute import CUDA_POOLS_BYTES
from corral.fit.devices import UnknownDeviceError
from corral.fit.estimate import (
    CUDA_CONTEXT_BYTES,
    PROCESS_BYTES,
    Estimate,
    estimate,
)
from tests.unit.fit_samples import AIR, DENSE, FLASH, MIB, model, placement, profile

LOGITS_BYTES = 151552 * 4


def need(
    name: str = AIR,
    *,
    kind: EngineKind = "llama.cpp",
    gpus: Sequence[int] = (81920,),
    placed: dict[str, Any] | None = None,
    outputs: int | None = None,
    **asked: Any,
) -> Estimate:
    return estimate(
        model(name),
        profile(**asked),
        placement(**placed or {}),
        kind=kind,
        gpu_memory_mib=gpus,
        outputs_per_batch=outputs,
    )


def compute(name: str = DENSE, **asked: Any) -> int:
    return need(name, **asked).gpus[0].compute_bytes


def test_a_server_wants_the_logits_of_one_token_a_slot() -> None:
    assert compute() == compute(outputs=1)
    # So wide that nothing else is wider.
    assert compute(outputs=4096) - compute(outputs=4095) == LOGITS_BYTES
    slots = compute(slots=4096, context_tokens_per_slot=256, ubatch_tokens=1)
    assert slots == compute(context_tokens_per_slot=256, ubatch_tokens=1, outputs=4096)


def test_drafting_wants_the_logits_of_the_drafted_tokens_too() -> None:
    many: dict[str, Any] = {"slots": 1024, "context_tokens_per_slot": 256, "ubatch_tokens": 1}
    assert compute(**many, mtp_draft_tokens=3) == compute(**many, outputs=4096)


def test_ik_llama_cpp_makes_room_for_the_logits_of_a_whole_batch() -> None:
    wide: dict[str, Any] = {"ubatch_tokens": 4096, "batch_tokens": 4096}
    pools = 136 * 1024**2
    assert compute(kind="ik_llama.cpp", **wide) == compute(outputs=4096, **wide) + pools
    assert compute(kind="ik_llama.cpp", **wide) > compute(**wide) + pools


def test_cuda_takes_its_part_of_each_gpu_and_ik_llama_cpp_a_little_more() -> None:
    cuda = CUDA_CONTEXT_BYTES + CUDA_POOLS_BYTES
    assert [gpu.runtime_bytes for gpu in need(gpus=(1, 1)).gpus] == [cuda, cuda]
    found = need(kind="ik_llama.cpp").gpus[0]
    assert found.runtime_bytes == CUDA_CONTEXT_BYTES + RUNTIME_BYTES


@pytest.mark.parametrize("kind", ["llama.cpp", "ik_llama.cpp"])
def test_without_flash_attention_pools_have_the_scores_in_f16(kind: EngineKind) -> None:
    """Of 96 heads of 128, 512 tokens at 32768: 3 GiB, and their queries."""
    asked: dict[str, Any] = {"kind": kind, "ubatch_tokens": 512, "flash_attention": False}
    without = need(AIR, **asked).gpus[0]
    with_flash = need(AIR, **{**asked, "flash_attention": True}).gpus[0]
    scores = 512 * 96 * (32768 + 128) * 2
    more = without.runtime_bytes - with_flash.runtime_bytes
    if kind == "llama.cpp":
        assert more == scores - CUDA_POOLS_BYTES
    else:
        assert more == 0
        row, product = 512 * 4096 * 4, 512 * 1408 * 4
        experts = 8 * (3 * row + 2 * product)
        assert without.compute_bytes - with_flash.compute_bytes > scores - experts


def test_pools_of_ik_llama_cpp_grow_with_the_batch_and_with_a_quantized_cache() -> None:
    """GLM-4.5-Air: measured 218 to 243 MiB with 512 tokens, 453 with 1024, and the cache in f16."""
    half: dict[str, Any] = {"kind": "ik_llama.cpp", "ubatch_tokens": 512}
    whole = {**half, "ubatch_tokens": 1024}
    more = compute(AIR, **whole) - compute(AIR, **half)
    logits, row = 512 * LOGITS_BYTES, 512 * 4096 * 4
    product = 512 * 1408 * 4
    assert more == logits + row + 8 * (3 * row + 2 * product)
    q8_0: dict[str, Any] = {"kv_type_k": "q8_0", "kv_type_v": "q8_0"}
    cache = compute(AIR, **half, **q8_0) - compute(AIR, **half)
    assert cache == 32768 * 2 * 1024 * 2


def test_the_host_keeps_the_process_and_its_saved_prompts() -> None:
    for prompts_mib in (0, 8192):
        found = need(prompt_cache_mib=prompts_mib).host
        assert found.runtime_bytes == PROCESS_BYTES + prompts_mib * MIB
        assert found.compute_bytes > 0


def test_the_parts_of_a_device_add_up() -> None:
    gpu = need().gpus[0]
    parts = (gpu.weights_bytes, gpu.kv_bytes, gpu.compute_bytes, gpu.runtime_bytes)
    assert min(parts) > 0
    assert gpu.total_bytes == sum(parts)


def test_only_the_gpu_with_the_output_layer_computes_logits() -> None:
    first, last = need(DENSE, gpus=(1, 1), outputs=4096).gpus
    assert last.compute_bytes - first.compute_bytes > 3000 * LOGITS_BYTES
    cut = need(DENSE, gpus=(1, 1), outputs=4096, split_mode="tensor").gpus
    assert [gpu.compute_bytes for gpu in cut] == [compute(outputs=4096)] * 2


def test_a_gpu_that_holds_nothing_computes_nothing() -> None:
    first, second = need(gpus=(1, 1), split_mode="none", main_gpu=1).gpus
    assert (first.weights_bytes, first.kv_bytes, first.compute_bytes) == (0, 0, 0)
    assert first.runtime_bytes == second.runtime_bytes
    assert second.compute_bytes > 0


def test_a_gpu_that_holds_only_a_part_of_the_experts_computes() -> None:
    placed = {"tensor_split": (1, 0), "tensor_overrides": ("blk\\.9\\.ffn_up_exps=CUDA1",)}
    second = need(gpus=(1, 1), placed=placed).gpus[1]
    assert second.weights_bytes > 0
    assert second.compute_bytes > 0


def test_drafting_adds_the_mtp_blocks_weights_kv_and_compute() -> None:
    plain, drafting = need().gpus[0], need(mtp_draft_tokens=1).gpus[0]
    assert drafting.weights_bytes > plain.weights_bytes
    assert drafting.kv_bytes * 46 == plain.kv_bytes * 47
    assert drafting.compute_bytes == 2 * need(outputs=2).gpus[0].compute_bytes


def test_the_mtp_block_of_a_latent_model_has_a_cache_of_its_own() -> None:
    plain, drafting = need(FLASH).gpus[0], need(FLASH, mtp_draft_tokens=1).gpus[0]
    assert drafting.kv_bytes * 47 == plain.kv_bytes * 48


def test_the_cache_for_drafts_is_f16_whatever_the_profiles_types() -> None:
    """512 MiB for GLM-4.5-Air at 131072: the server sets no type for it."""
    long: dict[str, Any] = {
        "context_tokens_per_slot": 131072,
        "kv_type_k": "q8_0",
        "kv_type_v": "q8_0",
    }
    plain, drafting = need(**long).gpus[0], need(**long, mtp_draft_tokens=1).gpus[0]
    assert drafting.kv_bytes - plain.kv_bytes == 512 * MIB


def test_ik_keeps_a_cache_for_drafts_in_each_slot_and_one_beside_them() -> None:
    usual: dict[str, Any] = {
        "context_tokens_per_slot": 16384, "slots": 2, "kv_type_k": "q8_0", "kv_type_v": "q8_0",
    }  # fmt: skip
    plain, drafting = (
        need(kind="ik_llama.cpp", **usual, mtp_draft_tokens=tokens).gpus[0] for tokens in (None, 2)
    )
    assert (drafting.kv_bytes - plain.kv_bytes) * 46 == plain.kv_bytes * 3
    assert drafting.compute_bytes == plain.compute_bytes * 3


def test_nothing_is_on_gpus_without_layers_there() -> None:
    found = need(placed={"gpu_layers": 0})
    everything = need()
    assert found.gpus == ()
    gpu, host = everything.gpus[0], everything.host
    assert found.host.weights_bytes == gpu.weights_bytes + host.weights_bytes
    assert found.host.kv_bytes == gpu.kv_bytes


def test_what_moves_to_the_host_leaves_the_gpu() -> None:
    whole, moved = need(), need(placed={"cpu_moe_layers": 20})
    left = whole.gpus[0].weights_bytes - moved.gpus[0].weights_bytes
    assert left == moved.host.weights_bytes - whole.host.weights_bytes > 0
    assert moved.gpus[0].kv_bytes == whole.gpus[0].kv_bytes


def test_an_override_to_a_gpu_that_is_not_there_is_told() -> None:
    with pytest.raises(UnknownDeviceError, match="CUDA1"):
        need(placed={"tensor_overrides": ("exps=CUDA1",)})
