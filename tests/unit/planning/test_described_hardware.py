"""GPUs and memory as an inventory describes them, where planning reads them."""

from __future__ import annotations

from typing import Any

import pytest

from corral.catalog.entries import Gpu
from corral.errors import CorralError
from corral.plan.instance import InstancePlan
from corral.plan.placement import DeviceNeed, InstanceNeed
from corral.planning.memory import refuse_full_memory
from corral.planning.planner import Planner
from tests.samples import CHAT, GPU, built, catalog, host, planner

NAMELESS = {name: value for name, value in GPU.items() if name != "compute_capability"}
KNOWN = Gpu(
    names=("NVIDIA A100*",), short_names=("A100",), memory_mib=40960, compute_capability="8.0"
)


def knowing() -> Planner:
    known = catalog().model_copy(update={"gpus": {"a100": KNOWN}})
    return planner().model_copy(update={"catalog": known})


def test_the_catalog_knows_the_compute_capability_of_a_name() -> None:
    said, known = host(CHAT, gpus=GPU), host(CHAT, gpus=NAMELESS)
    assert knowing().plan_host(known) == knowing().plan_host(said)
    assert knowing().releases(known) == knowing().releases(said)
    assert "80" in " ".join(built(knowing().plan_host(known).releases[0]).cmake_options)


def test_what_the_inventory_says_comes_first() -> None:
    found = knowing().plan_host(host(CHAT, gpus={**GPU, "compute_capability": "9.0"})).gpus
    assert found
    assert found.compute_capability == "9.0"


def test_a_gpu_that_nobody_knows_is_refused_with_what_is_known() -> None:
    other = host(CHAT, gpus={**NAMELESS, "name": "NVIDIA B300"})
    for ask in (knowing().plan_host, knowing().releases):
        with pytest.raises(CorralError, match=r'named "NVIDIA B300" \(known: A100\)') as caught:
            ask(other)
        assert '"compute_capability"' in caught.value.next_step


def needing(weights_gib: int, kv_gib: int, **changes: Any) -> InstancePlan:
    (sample,) = planner().plan_host(host(CHAT)).instances
    need = DeviceNeed(
        weights_mib=weights_gib * 1024, kv_mib=kv_gib * 1024, compute_mib=10**9, runtime_mib=10**9
    )
    return sample.model_copy(update={"need": InstanceNeed(host=need), **changes})


def test_what_is_exact_must_be_there_and_mapped_weights_need_not() -> None:
    spec = host(CHAT, memory_gib=64)
    refuse_full_memory(spec, [needing(500, 64)])
    refuse_full_memory(host(CHAT), [needing(500, 65)])
    refuse_full_memory(spec, [needing(60, 4, weights_mapped=False)])
    with pytest.raises(CorralError, match=r"are 65.0 GiB \(chat 65.0\), memory_gib is 64"):
        refuse_full_memory(spec, [needing(500, 65)])
    with pytest.raises(CorralError, match=r"are 66.0 GiB \(chat 61.0, long 5.0\)"):
        refuse_full_memory(spec, [needing(59, 2, weights_mapped=False), needing(9, 5, name="long")])


def test_a_plan_that_does_not_fit_in_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(
        "corral.planning.planner.refuse_full_memory",
        lambda of, instances: asked.append(len(instances)) if of.spec.memory_gib else None,
    )
    assert planner().plan_host(host(CHAT, memory_gib=64)).memory_gib == 64
    assert asked == [1]
