"""Models in safetensors on GPUs: offers, answers, and several instances of one host."""

from __future__ import annotations

from typing import Any

import pytest

from corral.errors import CorralError
from corral.fit.answer import TargetGpu
from corral.fit.host import Candidate, GpuName, Placed, fit_host
from corral.fit.safetensors.answer import answer
from corral.fit.safetensors.offers import ParallelOffer, parallel_offers
from corral.model_files.model import SafetensorsModel
from tests.unit.fit_samples import DENSE, H200_MIB, model, placement, profile
from tests.unit.model_dimensions import (
    GLM_4_5_AIR,
    GLM_4_7,
    GLM_4_7_FLASH,
    GLM_4_32B,
    model_of,
)

pytestmark = pytest.mark.slow

AIR, FLASH = model_of(GLM_4_5_AIR, "fp8-channel"), model_of(GLM_4_7_FLASH)
LARGE = model_of(GLM_4_7, "fp8-block")
SERVED: dict[str, Any] = {"slots": 16, "batch_tokens": 8192, "context_tokens_per_slot": 32768}


def h200(count: int) -> list[TargetGpu]:
    return [TargetGpu(f"GPU {number}", H200_MIB) for number in range(count)]


def offered(of: SafetensorsModel, gpus: int) -> list[ParallelOffer]:
    return parallel_offers({"FP8": of}, h200(gpus), kind="vllm")


def test_all_divisions_of_the_gpus_are_offered_best_first() -> None:
    found = offered(AIR, 4)
    assert [(o.tensor_parallel, o.data_parallel, o.kv_type) for o in found] == [
        *((4, 1, "f16"), (2, 2, "f16"), (1, 4, "f16")),
        *((4, 1, "fp8"), (2, 2, "fp8"), (1, 4, "fp8")),
    ]
    assert not any(offer.expert_parallel for offer in found)
    assert {offer.context_tokens for offer in found} == {131072}
    requests = [offer.requests for offer in found[:3]]
    assert requests == sorted(requests, reverse=True)
    best = found[0]
    assert best.request_tokens == 32768
    assert best.requests == pytest.approx(best.cache_tokens / 32768, rel=0.001)
    assert 25_000 < best.weights_mib < 26_100


def test_latent_attention_is_best_with_a_copy_on_each_gpu() -> None:
    """Its cache is whole on each rank of a copy."""
    assert (offered(FLASH, 4)[0].tensor_parallel, offered(FLASH, 4)[0].data_parallel) == (1, 4)
    assert 8 not in {offer.tensor_parallel for offer in offered(FLASH, 8)}


def test_experts_stay_whole_where_they_cannot_be_divided() -> None:
    eight = offered(LARGE, 8)
    assert eight
    assert all(offer.expert_parallel for offer in eight)


def test_what_does_not_fit_is_not_offered() -> None:
    assert offered(LARGE, 1) == []
    assert offered(AIR, 0) == []
    assert parallel_offers({}, h200(1), kind="vllm") == []
    longest = next(offer for offer in offered(AIR, 1) if offer.kv_type == "f16")
    assert 110_000 < longest.context_tokens < 131_072


def test_a_gpu_that_others_use_is_too_small() -> None:
    used = [TargetGpu("GPU 0", H200_MIB, others_mib=30 * 1024)]
    assert parallel_offers({"FP8": AIR}, used, kind="vllm") == []


def test_the_answer_for_a_profile_has_a_row_for_each_gpu_and_the_cache() -> None:
    served = profile(**SERVED, tensor_parallel=2)
    found = answer(
        AIR, served, placement(), kind="vllm", targets=h200(2), host_memory_mib=512 * 1024
    )
    assert found.fits
    assert [row.device for row in found.rows] == ["GPU 0", "GPU 1", "host"]
    assert found.rows[0].weights_mib == found.rows[1].weights_mib
    assert found.rows[2].weights_mib == 0
    assert found.cache
    assert found.cache.requests == pytest.approx(found.cache.tokens / 32768, abs=0.01)


def test_a_refusal_is_an_answer_that_does_not_fit() -> None:
    long = profile(**{**SERVED, "context_tokens_per_slot": 131072})
    found = answer(AIR, long, placement(), kind="vllm", targets=h200(1), host_memory_mib=None)
    assert not found.fits
    assert "estimated maximum model length" in found.refusal
    assert found.longest_tokens < 131072


def candidate(
    name: str = "a",
    of: SafetensorsModel = FLASH,
    *,
    gpus: tuple[GpuName, ...] = (0,),
    **asked: Any,
) -> Candidate:
    return Candidate(
        name=name,
        label=f"profile {name}-profile",
        kind="vllm",
        profile=profile(**SERVED | asked),
        placement=placement(),
        gpus=gpus,
        model=of,
    )


def planned(*candidates: Candidate, memory_mib: int | None = H200_MIB) -> dict[str, Placed]:
    return fit_host("gpu-1", candidates, memory_mib=memory_mib)


def refusal(*candidates: Candidate) -> CorralError:
    with pytest.raises(CorralError) as caught:
        planned(*candidates)
    return caught.value


def test_two_instances_share_a_gpu_by_their_shares() -> None:
    found = planned(
        candidate("a", gpu_memory_utilization=0.48), candidate("b", gpu_memory_utilization=0.48)
    )
    one, two = (found[name].need.gpus[0] for name in ("a", "b"))
    assert one == two
    assert one.total_mib == pytest.approx(0.48 * (H200_MIB - 640) + 2304, abs=2)


def test_shares_beyond_the_gpu_are_refused_by_name() -> None:
    """Weights and cache of the two would fit; what each takes does not."""
    error = refusal(
        candidate("a", gpu_memory_utilization=0.6), candidate("b", gpu_memory_utilization=0.6)
    )
    assert error.where == "gpu-1"
    assert "GPU 0: its instances reserve 172.2 GiB (a 86.1, b 86.1)" in error.what
    assert "lower gpu_memory_utilization" in error.next_step
    alone = refusal(candidate(gpu_memory_utilization=0.999))
    assert "GPU 0: its instances reserve" in alone.what


def test_another_engine_beside_it_counts() -> None:
    other = Candidate(
        name="gguf",
        label="profile p",
        kind="llama.cpp",
        profile=profile(context_tokens_per_slot=8192),
        placement=placement(),
        gpus=(0,),
        model=model(DENSE),
    )
    assert planned(candidate(gpu_memory_utilization=0.8), other)
    assert "a 128.0, gguf" in refusal(candidate(), other).what


def test_a_length_that_does_not_fit_stops_the_plan() -> None:
    error = refusal(candidate("air", AIR, context_tokens_per_slot=131072))
    assert error.where == "gpu-1/air: profile air-profile"
    assert "max seq len (131072)" in error.what
    assert "lower context_tokens_per_slot to" in error.next_step
    assert "20 attention heads" in refusal(candidate(gpus=tuple(range(8)), tensor_parallel=8)).what


def test_without_the_memory_of_the_gpus_the_need_is_unknown() -> None:
    found = planned(candidate(), memory_mib=None)["a"].need
    assert found.gpus == ()
    assert 'add "memory_mib"' in found.unknown


def test_without_gpus_it_needs_host_memory() -> None:
    found = planned(candidate(gpus=(), kv_cache_mib=4096), memory_mib=None)["a"].need
    assert found.host
    assert found.host.kv_mib == 4096
    assert not found.unknown


def test_an_unknown_architecture_is_unknown_and_no_refusal() -> None:
    unknown = SafetensorsModel((), None, 'architecture "X" is unknown to Corral', 0)
    assert planned(candidate(of=unknown))["a"].need.unknown == unknown.unknown


def test_a_dense_model_is_offered_too() -> None:
    found = parallel_offers({"BF16": model_of(GLM_4_32B)}, h200(2), kind="vllm")
    assert {(offer.tensor_parallel, offer.data_parallel) for offer in found} == {(2, 1), (1, 2)}
