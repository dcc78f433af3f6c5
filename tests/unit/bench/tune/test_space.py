"""What may be tried: each setting planned whole, with the command line of its server."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from corral.bench.tune.gains import Setting
from corral.bench.tune.search import Decided, Known, Rules, Search
from corral.bench.tune.space import Candidate, Impossible, Space, dimensions_of, machine_of
from corral.engines.tuning import Machine
from corral.fit.estimate import DRIVER_MIB
from corral.fit.placings import expert_blocks
from corral.host.state import GpuHost
from corral.planning.planner import Planner
from lab.measure_tune.settings import GRID, HEADER, air_space
from tests.samples import CHAT, host, planner
from tests.unit.bench.tune.surfaces import Machine as Measured
from tests.unit.bench.tune.surfaces import product_surface
from tests.unit.fit_samples import A100_MIB, AIR, SHARED_DATA, model
from tests.unit.vllm_samples import ASKED
from tests.unit.vllm_samples import planner as vllm_planner

PACKED = SHARED_DATA / HEADER
ONE = Machine(cores=16, threads=16, gpus=1, experts=True, drafts=True)
TWO = Machine(cores=64, threads=128, numa_nodes=2, gpus=2, experts=True, drafts=True)
FOUR = Machine(cores=64, threads=128, gpus=4, experts=True, drafts=True)
A40_MIB = 46068
H100 = {"name": "NVIDIA H100", "count": 4, "compute_capability": "9.0", "memory_mib": 81559}


def chosen(space: Space, **choices: str) -> Candidate:
    """The setting with these choices; ``_`` in a name is a space or a dash of the subject."""
    names = {re.sub(r"\W", "_", one.name): one.name for one in space.dimensions}
    setting = space.setting({names[name]: label for name, label in choices.items()})
    assert setting is not None, f"no such choice among {space.dimensions}"
    found = space.at(setting)
    assert isinstance(found, Candidate), found.why
    return found


def value(candidate: Candidate, flag: str) -> str | None:
    """The value of a flag, None without it."""
    argv = candidate.argv
    return argv[argv.index(flag) + 1] if flag in argv else None


@pytest.fixture(scope="module")
def one_gpu() -> Space:
    return air_space(PACKED, memory_mib=[A100_MIB], machine=ONE)


@pytest.fixture(scope="module")
def two_gpus() -> Space:
    return air_space(PACKED, memory_mib=[A40_MIB] * 2, machine=TWO, overrides={"placement": "gpu"})


def test_the_subjects_of_a_gpu_host_with_experts(one_gpu: Space, two_gpus: Space) -> None:
    assert [one.name for one in one_gpu.dimensions] == [
        "placement", "micro-batch", "threads", "threads for prompts", "batch", "MTP drafts",
    ]  # fmt: skip
    assert [one.name for one in two_gpus.dimensions] == [
        "placement", "micro-batch", "batch", "MTP drafts", "split mode", "tensor split",
        "thread binding",
    ]  # fmt: skip


def test_placements_keep_experts_of_layers_on_the_host(one_gpu: Space) -> None:
    parts = r"blk\.28\.ffn_(down)_exps=CPU"
    auto = one_gpu.current
    assert (value(auto, "--n-cpu-moe"), value(auto, "--override-tensor")) == ("28", parts)
    whole = chosen(one_gpu, placement="whole layers")
    assert (value(whole, "--n-cpu-moe"), value(whole, "--override-tensor")) == ("29", None)
    more = chosen(one_gpu, placement="one more layer on the host")
    assert value(more, "--n-cpu-moe") == "30"
    last = chosen(one_gpu, placement="last layers on the host")
    (listed,) = re.findall(r"blk\\\.\(([0-9|]+)\)", value(last, "--override-tensor") or "")
    # The first block has no experts.
    assert listed.split("|") == [str(n) for n in expert_blocks(model(AIR))[-28:]]
    recipe = chosen(one_gpu, placement="experts-on-cpu")
    assert "--cpu-moe" in recipe.argv
    # The fewer experts there are on the GPU, the less of it is used.
    used = [one.need.gpus[0].total_mib for one in (auto, whole, more, recipe)]
    assert used == sorted(used, reverse=True)


@pytest.mark.slow
@pytest.mark.parametrize("memory_mib", [24 * 1024, A100_MIB])
def test_all_that_can_run_fits_and_what_does_not_fit_is_never_asked_for(memory_mib: int) -> None:
    space = air_space(PACKED, memory_mib=[memory_mib], machine=ONE, choices=GRID)
    found = {setting: space.at(setting) for setting in product(*map(range, space.sizes))}
    fitting = {s: one for s, one in found.items() if isinstance(one, Candidate)}
    assert len(fitting) >= 60
    for one in fitting.values():
        assert one.need.gpus[0].total_mib + one.need.gpus[0].reserved_mib <= memory_mib
        assert not one.need.unknown
    assert len({one.digest for one in fitting.values()}) == len(fitting)
    asked = searched(space)
    assert asked <= fitting.keys()
    assert len(asked) < len(fitting)


def test_buffers_that_a_gpu_may_not_hold_are_not_tried() -> None:
    """Weights and caches fit, so that it is planned; the bound of its buffers does not."""
    space = air_space(
        PACKED, memory_mib=[42_500] * 2, machine=TWO,
        overrides={"placement": "gpu", "tensor_split": [0.97, 1.0]},
    )  # fmt: skip
    found = space.at(space.setting({"micro-batch": "4096"}) or ())
    assert isinstance(found, Impossible)
    assert re.fullmatch(r"GPU 0 would lack \d+ MiB", found.why)
    # What is so already is no worse for it.
    tight = air_space(
        PACKED, memory_mib=[41_400] * 2, machine=TWO,
        overrides={"placement": "gpu", "tensor_split": [0.97, 1.0]},
    )  # fmt: skip
    assert tight.current.need.gpus[0].total_mib > 41_400 - DRIVER_MIB
    assert tight.feasible(tight.setting({"batch": "4096"}) or ())


def searched(space: Space) -> set[Setting]:
    """All settings that a search of the space measures."""
    surface = product_surface(space.sizes, 5)
    machine = Measured(space.sizes, surface, 5, noise=0.01)
    while True:
        known = Known(machine.looks, machine.pairs)
        step = Search(space.sizes, known, Rules(), space.feasible).next_step()
        if isinstance(step, Decided):
            return {one for measure in machine.asked for one in measure.order}
        machine.measure(step)


def test_several_gpus_share_in_other_ways(two_gpus: Space) -> None:
    assert value(two_gpus.current, "--tensor-split") == "1,1"
    less = chosen(two_gpus, tensor_split="less on the first")
    assert value(less, "--tensor-split") == "0.85,1"
    own, other = two_gpus.current.need.gpus[0], less.need.gpus[0]
    assert other.weights_mib < own.weights_mib
    assert value(chosen(two_gpus, split_mode="tensor"), "--split-mode") == "tensor"


def test_memory_of_numa_nodes_is_of_the_unit_in_which_it_is_measured(two_gpus: Space) -> None:
    """It is no flag of the server: without it a run would measure something else."""
    spread = chosen(two_gpus, thread_binding="interleaved")
    assert spread.properties == ("NUMAPolicy=interleave", "NUMAMask=all")
    assert value(spread, "--numa") == "numactl"
    assert chosen(two_gpus, thread_binding="isolate").properties == ()
    now = air_space(
        PACKED, memory_mib=[A40_MIB] * 2, machine=TWO,
        overrides={"numa": "numactl", "numa_memory": "bind", "numa_nodes": "0"},
    ).current  # fmt: skip
    assert now.properties == ("NUMAPolicy=bind", "NUMAMask=0", "CPUAffinity=numa")


def test_drafts_and_batches_come_with_what_they_need(one_gpu: Space) -> None:
    drafts = chosen(one_gpu, MTP_drafts="2")
    assert value(drafts, "--spec-draft-n-max") == "2"
    # The block that drafts takes room of experts.
    assert drafts.need.gpus[0].total_mib <= A100_MIB
    assert drafts.need.host
    assert one_gpu.current.need.host
    assert drafts.need.host.weights_mib > one_gpu.current.need.host.weights_mib
    large = chosen(one_gpu, micro_batch="4096")
    assert (value(large, "--batch-size"), value(large, "--ubatch-size")) == ("4096", "4096")


def test_kv_types_and_flash_attention_are_tried_where_the_profile_allows_it() -> None:
    plain = {"kv_type_k": "f16", "kv_type_v": "f16"}
    space = air_space(PACKED, memory_mib=[A100_MIB], machine=ONE, overrides=plain)
    assert value(chosen(space, flash_attention="off"), "--flash-attn") == "off"
    allowed = {**plain, "tune_kv_types": ["q8_0"]}
    space = air_space(PACKED, memory_mib=[A100_MIB], machine=ONE, overrides=allowed)
    smaller = chosen(space, KV_types="q8_0")
    assert value(smaller, "--cache-type-k") == value(smaller, "--cache-type-v") == "q8_0"
    assert "flash attention" not in [one.name for one in space.dimensions]


def vllm_space(
    machine: Machine, data: dict[str, Any], make: Callable[..., Planner] = vllm_planner,
    **profile: Any,
) -> Space:  # fmt: skip
    own, there = make(**profile), host(ASKED, **data)
    plan = own.plan_host(there)
    (instance,) = plan.instances
    found = dimensions_of(instance, machine, only=(), where="lab-1/glm")
    return Space(own, there, plan, instance, found)


@pytest.mark.slow
def test_vllm_on_four_gpus() -> None:
    space = vllm_space(FOUR, {"gpus": H100, "cuda_toolkit": "12.8"}, tensor_parallel=4)
    assert [one.name for one in space.dimensions] == [
        "TP x DP", "batched tokens", "concurrent sequences", "MTP drafts",
    ]  # fmt: skip
    ranks = chosen(space, TP_x_DP="2 x 2 with whole experts")
    assert value(ranks, "--tensor-parallel-size") == value(ranks, "--data-parallel-size") == "2"
    assert "--enable-expert-parallel" in ranks.argv
    assert value(chosen(space, batched_tokens="8192"), "--max-num-batched-tokens") == "8192"
    # Fewer sequences than the profile has would break its promise.
    labels = {one.name: [c.label for c in one.choices] for one in space.dimensions}
    assert labels["concurrent sequences"] == ["8", "16", "32"]
    assert value(chosen(space, concurrent_sequences="16"), "--max-num-seqs") == "16"
    drafts = value(chosen(space, MTP_drafts="2"), "--speculative-config")
    assert drafts == '{"method":"mtp","num_speculative_tokens":2}'
    for setting in product(*map(range, space.sizes)):
        found = space.at(setting)
        assert isinstance(found, Candidate)
        assert max(gpu.reserved_mib for gpu in found.need.gpus) <= H100["memory_mib"]  # type: ignore[operator]
    assert searched(space)


def test_vllm_without_a_gpu() -> None:
    machine = Machine(cores=8, threads=16, experts=True)
    space = vllm_space(machine, {}, kv_cache_mib=512, placement="cpu")
    assert "cores" in [one.name for one in space.dimensions]
    cores = chosen(space, cores="0-3")
    assert cores.environment["VLLM_CPU_OMP_THREADS_BIND"] == "0-3"
    assert cores.digest != space.current.digest


def test_what_a_machine_has_is_read_from_its_host_and_the_header() -> None:
    plan = planner().plan_host(host(CHAT))
    facts = GpuHost.model_validate({"processors": {"cores": 8, "threads": 16}, "numa_nodes": 2})
    found = machine_of(facts, plan.instances[0], model(AIR))
    assert found == Machine(cores=8, threads=16, numa_nodes=2, gpus=0, experts=True, drafts=True)
    assert machine_of(facts, plan.instances[0], None).experts is False
