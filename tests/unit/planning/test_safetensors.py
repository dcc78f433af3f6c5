"""Plans of instances with weights in safetensors: headers, memory, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from corral.errors import CorralError
from corral.plan.host import HostPlan
from tests.headers import NoHub
from tests.samples import CHAT, host
from tests.samples import planner as sample_planner
from tests.unit.vllm_samples import ASKED, ON_CPU, planner

H200: dict[str, Any] = {
    "name": "NVIDIA H200",
    "count": 1,
    "compute_capability": "9.0",
    "memory_mib": 143771,
}
SECOND: dict[str, Any] = {**ASKED, "name": "second", "port": 8002}


def planned(*instances: dict[str, Any], host_data: dict[str, Any], **profile: Any) -> HostPlan:
    return planner(**profile).plan_host(host(*instances, **host_data))


def test_weights_have_headers_and_files_beside_them_have_none() -> None:
    shards = planned(ASKED, host_data={"gpus": H200}).shards
    assert [(s.kind, s.header is not None) for s in shards] == [
        ("weights", True),
        ("config", False),
        ("config", False),
    ]


def test_an_instance_on_a_gpu_takes_its_share_of_it() -> None:
    (instance,) = planned(ASKED, host_data={"gpus": H200}, gpu_memory_utilization=0.3).instances
    need = instance.need.gpus[0]
    assert instance.need.unknown == ""
    assert need.reserved_mib == need.total_mib == pytest.approx(0.3 * 143131 + 2304, abs=2)
    assert not instance.weights_mapped


def test_two_instances_must_share_the_gpu() -> None:
    half = planned(ASKED, SECOND, host_data={"gpus": H200}, gpu_memory_utilization=0.45)
    assert len(half.instances) == 2
    with pytest.raises(CorralError, match="GPU 0: its instances reserve") as caught:
        planned(ASKED, SECOND, host_data={"gpus": H200}, gpu_memory_utilization=0.55)
    assert "gpu_memory_utilization" in caught.value.next_step


def test_without_gpus_weights_and_cache_are_in_host_memory() -> None:
    (instance,) = planned(ASKED, host_data={}, **ON_CPU).instances
    assert instance.need.host
    assert instance.need.host.kv_mib == 512
    assert instance.need.host.weights_mib >= 1
    assert not instance.weights_mapped


def test_a_host_without_the_memory_is_refused() -> None:
    """Weights in safetensors are no mapped pages, and the cache has a size of its own."""
    with pytest.raises(CorralError, match="weights and KV cache in host memory"):
        planned(ASKED, host_data={"memory_gib": 2}, **{**ON_CPU, "kv_cache_mib": 4096})


def test_a_cache_too_small_for_one_request_is_refused() -> None:
    with pytest.raises(CorralError, match="max seq len") as caught:
        planned(
            ASKED,
            host_data={},
            **{**ON_CPU, "kv_cache_mib": 1, "context_tokens_per_slot": 8192},
        )
    assert "kv_cache_mib" in caught.value.next_step


def test_without_the_hub_the_need_is_unknown() -> None:
    silent = planner().model_copy(update={"headers": NoHub()})
    (instance,) = silent.plan_host(host(ASKED, gpus=H200)).instances
    assert "the hub does not answer" in instance.need.unknown


@pytest.mark.parametrize(
    ("spec", "said", "step"),
    [
        (
            {**ASKED, "engine": "llama.cpp"},
            "quant BF16 of small-safetensors is in safetensors, which llama.cpp does not read",
            'choose an engine of kind "vllm", or a model in gguf',
        ),
        (
            {**CHAT, "engine": "vllm"},
            "quant Q8_0 of small is in gguf, which vllm does not read",
            'choose an engine of kind "llama.cpp" or "ik_llama.cpp", or a model in safetensors',
        ),
    ],
)
def test_an_engine_of_another_format_is_refused(spec: dict[str, Any], said: str, step: str) -> None:
    with pytest.raises(CorralError) as caught:
        planner(sample_planner(), **ON_CPU).plan_host(host(spec))
    assert caught.value.what == said
    assert caught.value.next_step == step
