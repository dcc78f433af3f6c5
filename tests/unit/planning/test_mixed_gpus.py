"""Several kinds of GPUs in one host: each is planned by its own memory and capability."""

from __future__ import annotations

from typing import Any

import pytest

from corral.errors import CorralError
from corral.inventory.hosts import GpuKind
from corral.plan.host import HostPlan
from corral.planning.gpus import together
from corral.preflight.gpus import gpu_findings
from tests.gpu_samples import gpu, serving
from tests.samples import CHAT, LONG, built, host, planner

SMALL: dict[str, Any] = {"name": "L4", "count": 1, "compute_capability": "8.9", "memory_mib": 3000}
LARGE: dict[str, Any] = {
    "name": "A100",
    "count": 2,
    "compute_capability": "8.0",
    "memory_mib": 40960,
}
MIXED: list[dict[str, Any]] = [SMALL, LARGE]


def plan(*instances: dict[str, Any], gpus: Any = MIXED) -> HostPlan:
    return planner().plan_host(host(*instances, gpus=gpus))


def test_a_list_of_kinds_is_one_description() -> None:
    found = plan({**CHAT, "gpus": [1]}).gpus
    assert found
    assert (found.count, found.compute_capability) == (3, "8.0")
    assert found.name == "1 x L4 + 2 x A100"
    assert found.kinds == (GpuKind(**SMALL), GpuKind(**LARGE))
    one = plan(CHAT, gpus=[LARGE]).gpus
    assert one
    assert one == plan(CHAT, gpus=LARGE).gpus
    assert one.kinds == ()


def test_an_engine_is_built_for_every_kind() -> None:
    options = built(plan({**CHAT, "gpus": [1]}).releases[0]).cmake_options
    assert "-DCMAKE_CUDA_ARCHITECTURES=80;89" in options
    with pytest.raises(CorralError) as caught:
        plan(CHAT, gpus=[LARGE, {**SMALL, "compute_capability": "10.7"}])
    assert "compute capability 10.7" in caught.value.what


def test_an_instance_has_the_memory_of_its_own_gpus() -> None:
    assert plan({**CHAT, "gpus": [1]}, {**LONG, "gpus": [2]}).instances
    for gpus in ([0], [0, 1], []):
        with pytest.raises(CorralError) as caught:
            plan({**CHAT, "gpus": gpus, "profile": "long", "quant": "F16"}, gpus=[
                {**SMALL, "memory_mib": 640}, LARGE])  # fmt: skip
        assert "GPU 0" in caught.value.what


def test_kinds_that_share_an_instance_are_placed_together() -> None:
    sets = [frozenset({0}), frozenset({1}), frozenset({2}), frozenset({1, 2}), frozenset[int]()]
    assert sorted(map(sorted, together(sets))) == [[], [0], [1, 2]]


def test_the_host_is_compared_by_kind_and_order() -> None:
    planned = plan({**CHAT, "gpus": [1]})
    l4 = {"compute_capability": "8.9", "name": "NVIDIA L4", "memory_total_mib": 3000}
    fine = serving(gpus=(gpu(0, **l4), gpu(1), gpu(2)))
    assert gpu_findings(planned, fine) == []
    lacking = gpu_findings(planned, serving(gpus=(gpu(0, **l4), gpu(1))))
    assert "2 GPUs of compute capability 8.0 planned" in lacking[0].what
    turned = gpu_findings(planned, serving(gpus=(gpu(0), gpu(1), gpu(2, **l4))))
    assert turned[0].what == "GPU 0 is NVIDIA A100 (8.0), the inventory has L4 (8.9) there"
    assert "order of nvidia-smi" in turned[0].next_step
    small = serving(gpus=(gpu(0, **{**l4, "memory_total_mib": 900}), gpu(1), gpu(2)))
    assert "GPU 0 has 900 MiB, the inventory has 3000 MiB" in gpu_findings(planned, small)[0].what


@pytest.mark.parametrize(
    ("gpus", "said"),
    [([], "the list of kinds is empty"), ([SMALL, {"name": "x"}], "count"), ([3], "gpus")],
)
def test_a_bad_list_is_refused(gpus: Any, said: str) -> None:
    with pytest.raises(CorralError) as caught:
        host(CHAT, gpus=gpus)
    assert said in str(caught.value)
