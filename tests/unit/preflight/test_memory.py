"""Memory before a deploy: what is exact stops a host, what is bounded or odd is a word."""

from __future__ import annotations

from typing import Any

import pytest

from corral.catalog.entries import load_catalog
from corral.engines import resolve_placement
from corral.findings import Finding
from corral.fit.estimate import DRIVER_MIB
from corral.fit.host import Candidate, fit_host
from corral.host.state import GpuProcess, HostState, Memory
from corral.plan.host import HostPlan
from corral.plan.instance import InstancePlan
from corral.plan.placement import DeviceNeed, InstanceNeed
from corral.preflight.memory import fit_findings
from tests.gpu_samples import gpu, gpu_plan, serving
from tests.samples import EXAMPLES, bare
from tests.samples import serving as instance_serving
from tests.unit.fit_samples import A100_MIB, AIR, model, placement

THERE_MIB = A100_MIB - DRIVER_MIB
GIB_IN_MIB = 1024


def device(exact_mib: int, bound_mib: int = 0) -> DeviceNeed:
    return DeviceNeed(weights_mib=exact_mib - 1, kv_mib=1, compute_mib=bound_mib, runtime_mib=0)


def instance(name: str = "chat", *gpus: DeviceNeed, **changes: Any) -> InstancePlan:
    """A planned instance with its needs; ``changes`` are its fields, or those of its need."""
    need = {key: changes.pop(key) for key in ("host", "unknown") if key in changes}
    (sample,) = gpu_plan().instances
    fields = {
        "name": name,
        "unit": f"corral-{name}.service",
        "gpus": tuple(range(len(gpus))),
        "need": InstanceNeed(gpus=gpus, **need),
        "placement": placement(),
        **changes,
    }
    return sample.model_copy(update=fields)


@pytest.mark.parametrize(("total_mib", "reported"), [(125_000, False), (100_000, True), (0, False)])
def test_less_memory_than_is_described_is_a_word(total_mib: int, reported: bool) -> None:
    plan = gpu_plan().model_copy(update={"memory_gib": 128, "instances": ()})
    findings = fit_findings(plan, state(plan, memory=Memory(total_mib=total_mib)))
    assert [(f.what, f.stops) for f in findings] == (
        [("the host has 97.7 GiB of memory, the inventory has memory_gib = 128", False)]
        if reported
        else []
    )
    undescribed = plan.model_copy(update={"memory_gib": None})
    assert fit_findings(undescribed, state(plan, memory=Memory(total_mib=total_mib))) == []


def planned(*instances: InstancePlan) -> HostPlan:
    return gpu_plan().model_copy(update={"instances": instances})


def state(plan: HostPlan, *processes: GpuProcess, **host: Any) -> HostState:
    return bare(plan, gpu_host=serving(processes=processes, **host))


def found(
    *instances: InstancePlan, processes: tuple[GpuProcess, ...] = (), **host: Any
) -> list[Finding]:
    plan = planned(*instances)
    findings = fit_findings(plan, state(plan, *processes, **host))
    assert all(finding.next_step for finding in findings)
    return findings


def held(used_mib: int | None, unit: str = "", on: str = "GPU-0") -> GpuProcess:
    return GpuProcess(gpu=on, pid=1, program="python", unit=unit, used_mib=used_mib)


def memory(total_mib: int) -> dict[str, Any]:
    return {"memory": {"total_mib": total_mib}}


def test_what_fits_is_no_finding() -> None:
    assert found(instance("chat", device(THERE_MIB))) == []


def test_weights_and_kv_that_are_not_there_stop_the_host_and_name_all_of_them() -> None:
    half = THERE_MIB // 2
    (finding,) = found(instance("a", device(half + 1)), instance("b", device(half)))
    assert finding.stops
    assert finding.what == "GPU 0: weights and KV cache of a, b are 39.4 GiB, 39.4 GiB is available"
    assert "corral fit MODEL --host lab-1" in finding.next_step
    assert found(instance("a", device(half)), instance("b", device(half))) == []


def test_each_gpu_is_its_own() -> None:
    one = instance("a", device(30000))
    other = instance("b", device(30000), gpus=(1,))
    assert found(one, other) == []
    (finding,) = found(one, instance("b", device(100), device(50000)))
    assert finding.what.startswith("GPU 1: weights and KV cache of b are")


def test_gpus_are_found_by_uuid_and_in_the_order_of_the_set() -> None:
    (finding,) = found(instance("a", device(50000), device(100), gpus=("GPU-1", "GPU-0")))
    assert finding.what.startswith("GPU 1: weights")


def test_what_is_only_bounded_is_a_word() -> None:
    (finding,) = found(instance("a", device(THERE_MIB, bound_mib=1)))
    assert not finding.stops
    assert finding.what == "GPU 0: a may need 39.4 GiB, 39.4 GiB is available"
    assert finding.next_step.startswith("the fit proof decides")


def test_what_strangers_hold_is_not_there() -> None:
    others = (held(1000, "jupyter.service"), held(1000), held(None))
    (finding,) = found(instance("a", device(THERE_MIB - 1999)), processes=others)
    assert finding.stops
    assert finding.what == (
        "GPU 0: weights and KV cache of a are 37.4 GiB, 37.4 GiB is available beside 2.0 GiB "
        "of other processes"
    )
    assert found(instance("a", device(THERE_MIB - 2000)), processes=others) == []


def test_the_planned_units_and_other_gpus_are_no_strangers() -> None:
    own = held(30000, "corral-a.service")
    elsewhere = held(30000, on="GPU-1")
    assert found(instance("a", device(THERE_MIB)), processes=(own, elsewhere)) == []
    stranger = held(30000, "corral-gone.service")
    assert found(instance("a", device(THERE_MIB)), processes=(stranger,))[0].stops


def test_a_gpu_whose_memory_is_not_known_is_not_judged() -> None:
    blind = (gpu(0, memory_total_mib=None), gpu(1))
    assert found(instance("a", device(99999)), gpus=blind) == []


@pytest.mark.parametrize(
    "kept",
    [
        {"experts_on_cpu": True},
        {"cpu_moe_layers": 3},
        {"tensor_overrides": ("exps=CPU",)},
        {"gpu_layers": 40},
    ],
)
def test_idle_memory_beside_weights_on_the_host_is_a_word(kept: dict[str, Any]) -> None:
    (finding,) = found(instance("a", device(10000), placement=placement(**kept)))
    assert not finding.stops
    assert finding.what == (
        "a: 29.6 GiB of GPU 0 stay idle while weights that would fit there are in host memory"
    )
    assert finding.next_step == 'set placement = "auto" in profile chat'


def test_idle_memory_is_no_word_where_nothing_could_fill_it() -> None:
    assert found(instance("a", device(10000))) == []
    nothing_there = placement(gpu_layers=0)
    assert found(instance("a", device(10000), placement=nothing_there)) == []
    kept = placement(experts_on_cpu=True)
    quarter = A100_MIB // 4
    assert found(instance("a", device(THERE_MIB - quarter), placement=kept)) == []
    assert found(instance("a", device(THERE_MIB - quarter - 1), placement=kept))


def test_a_need_that_is_not_known_is_a_word_until_the_instance_serves() -> None:
    strange = instance("chat", unknown='architecture "glm9" is unknown to Corral')
    (finding,) = found(strange)
    assert not finding.stops
    assert finding.what.startswith('chat: its memory need is unknown: architecture "glm9"')
    plan = planned(strange)
    serves = instance_serving(strange.generation, "0" * 64).model_dump()
    settled = bare(plan, instances={"chat": serves}, gpu_host=serving())
    assert fit_findings(plan, settled) == []


def on_host(own_mib: int, weights_mib: int = 0, **changes: Any) -> InstancePlan:
    need = DeviceNeed(weights_mib=weights_mib, kv_mib=0, compute_mib=0, runtime_mib=own_mib)
    return instance(changes.pop("name", "a"), host=need, **changes)


def test_host_memory_that_is_not_there_stops() -> None:
    pair = (on_host(6000), on_host(6000, name="b"))
    (finding,) = found(*pair, **memory(11999))
    assert finding.stops
    assert finding.what == (
        "the instances need 11.7 GiB of host memory beside their weights, the host has 11.7 GiB"
    )
    assert found(*pair, **memory(12000 + 12 * GIB_IN_MIB)) == []
    assert found(*pair, **memory(0)) == []


def test_one_file_is_mapped_once_however_many_read_it() -> None:
    first, second = on_host(1000, 50000), on_host(1000, 40000, name="b")
    enough_mib = 2000 + 50000 + 12 * GIB_IN_MIB
    assert found(first, second, **memory(enough_mib)) == []
    (finding,) = found(first, second, **memory(enough_mib - 1))
    assert not finding.stops
    other = second.model_copy(update={"shards": ("/other.gguf",)})
    assert found(first, other, **memory(enough_mib + 39999))
    assert found(first, other, **memory(enough_mib + 40000)) == []


@pytest.mark.parametrize(
    ("own_mib", "weights_mib", "total_mib"),
    [(8600, 1, 8 * GIB_IN_MIB + 500), (600, 20, 8 * GIB_IN_MIB), (1000, 4000, 16 * GIB_IN_MIB)],
)
def test_weights_that_stay_in_memory_are_no_finding(
    own_mib: int, weights_mib: int, total_mib: int
) -> None:
    assert found(on_host(own_mib, weights_mib), **memory(total_mib)) == []


def test_a_small_host_with_more_weights_than_memory_is_told() -> None:
    (finding,) = found(on_host(1000, 14000), **memory(16 * GIB_IN_MIB))
    assert finding.what.startswith("13.7 GiB of weights are read from host memory")


def air_with_experts_on_cpu() -> InstancePlan:
    """GLM-4.5-Air as catalog/profiles/glm-4.5-air-experts-on-cpu.toml has it: 73 GB mapped."""
    shipped = load_catalog(EXAMPLES / "catalog").profile("glm-4.5-air-experts-on-cpu", where="")
    candidate = Candidate(
        name="air",
        label="profile p",
        kind="llama.cpp",
        profile=shipped,
        placement=resolve_placement(shipped, gpus=1),
        gpus=(0,),
        model=model(AIR),
    )
    placed = fit_host("lab-1", [candidate], memory_mib=A100_MIB)["air"]
    fields = {"need": placed.need, "placement": placed.placement, "gpus": (0,)}
    return instance("air").model_copy(update=fields)


def test_fewer_than_96_gb_for_a_mapped_73_gb_model_is_a_word() -> None:
    air = air_with_experts_on_cpu()
    assert air.need.host
    assert air.need.host.weights_mib * 1024**2 // 10**9 == 73
    idle = "air: 28.1 GiB of GPU 0 stay idle while weights that would fit there are in host memory"
    assert [f.what for f in found(air, **memory(96 * 10**9 // 1024**2))] == [idle]
    _, finding = found(air, **memory(88 * GIB_IN_MIB))
    assert not finding.stops
    assert finding.what == (
        "68.0 GiB of weights are read from host memory of 88.0 GiB: with 8.6 GiB for the "
        "servers themselves, weights will be read from disk again and again"
    )


def test_a_share_that_others_leave_no_room_for_names_its_key() -> None:
    """A smaller context would not help: the engine takes its share in any case."""
    share = device(1000).model_copy(update={"reserved_mib": THERE_MIB + 1})
    plan = planned(instance("vllm", share))
    (finding,) = fit_findings(plan, state(plan))
    assert finding.stops
    assert finding.what.startswith("GPU 0: the share of vllm is 39.4 GiB, 39.4 GiB is available")
    assert finding.next_step.startswith("lower gpu_memory_utilization, or free the GPU (`corral")
