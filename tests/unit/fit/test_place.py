"""placement = "auto": never over budget, and nothing left out that would fit."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral.catalog.entries import EngineKind
from corral.catalog.profile import Profile
from corral.fit.devices import HOST, devices
from corral.fit.estimate import estimate
from corral.fit.place import DoesNotFitError, place
from corral.plan.placement import ResolvedPlacement
from tests.unit.fit_samples import (
    AIR,
    DENSE,
    FLASH,
    MIB,
    model,
    placement,
    profile,
    unknown_model,
)

pytestmark = pytest.mark.slow

REALTIME = profile(kv_type_k="q8_0", kv_type_v="q8_0", ubatch_tokens=1024, placement="auto")


def over_budget(
    name: str,
    placed: ResolvedPlacement,
    budgets: Sequence[int],
    asked: Profile = REALTIME,
    kind: EngineKind = "llama.cpp",
) -> list[int]:
    """GPUs that a placement asks for more than their budget."""
    found = estimate(model(name), asked, placed, kind=kind, gpu_memory_mib=budgets)
    needs = zip(found.gpus, budgets, strict=True)
    return [gpu for gpu, (need, mib) in enumerate(needs) if need.total_bytes > mib * MIB]


def auto(
    name: str, *budgets: int, asked: Profile = REALTIME, kind: EngineKind = "llama.cpp"
) -> ResolvedPlacement:
    return place(model(name), asked, kind=kind, budgets_mib=budgets)


def one_step_back(placed: ResolvedPlacement) -> ResolvedPlacement:
    """With the experts on one GPU that came to the host last, there again."""
    if placed.tensor_overrides:
        return placed.model_copy(update={"tensor_overrides": placed.tensor_overrides[:-1]})
    return placed.model_copy(update={"cpu_moe_layers": placed.cpu_moe_layers - 1})


def test_what_fits_as_a_whole_goes_to_the_gpu_as_a_whole() -> None:
    assert auto(AIR, 90000) == placement()
    assert auto(DENSE, 24000) == placement()


def test_experts_of_the_first_layers_stay_on_the_host_and_nothing_else() -> None:
    part = ("blk\\.28\\.ffn_(down)_exps=CPU",)
    assert auto(AIR, 39296) == placement(cpu_moe_layers=28, tensor_overrides=part)
    part = ("blk\\.1\\.ffn_(gate|up|gate_up)_exps=CPU",)
    assert auto(AIR, 80000) == placement(tensor_overrides=part)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([AIR, FLASH]), st.integers(4000, 90000), st.sampled_from([512, 2048]))
def test_one_gpu_is_never_over_its_budget_and_no_more_would_fit(
    name: str, budget_mib: int, ubatch_tokens: int
) -> None:
    asked = REALTIME.model_copy(update={"ubatch_tokens": ubatch_tokens})
    try:
        placed = auto(name, budget_mib, asked=asked)
    except DoesNotFitError:
        least = placement(experts_on_cpu=True)
        assert over_budget(name, least, [budget_mib], asked) == [0]
        return
    assert over_budget(name, placed, [budget_mib], asked) == []
    if placed != placement():
        assert over_budget(name, one_step_back(placed), [budget_mib], asked) == [0]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(12000, 90000), min_size=2, max_size=4))
def test_none_of_several_gpus_is_over_its_budget(budgets: list[int]) -> None:
    try:
        placed = auto(AIR, *budgets)
    except DoesNotFitError:
        least = placement(experts_on_cpu=True, tensor_split=tuple(map(float, budgets)))
        assert over_budget(AIR, least, budgets)
        return
    assert over_budget(AIR, placed, budgets) == []
    assert placed == auto(AIR, *budgets)


def test_experts_left_by_one_gpu_take_room_on_another() -> None:
    """The first would hold all of its own, were it not for the copies of the second's."""
    budgets = (39700, 39700)
    alone = placement(tensor_split=(1.0, 1.0))
    assert over_budget(AIR, alone, budgets) == [0, 1]
    assert over_budget(AIR, auto(AIR, *budgets), budgets) == []


def test_each_gpu_leaves_experts_of_its_own_first_layers() -> None:
    budgets = (24200, 24200)
    placed = auto(AIR, *budgets)
    assert (placed.cpu_moe_layers, placed.tensor_split) == (13, (24200.0, 24200.0))
    blocks = "|".join(str(block) for block in range(24, 34))
    assert placed.tensor_overrides == (
        rf"blk\.({blocks})\.ffn_(up|down|gate|gate_up)_exps=CPU",
        r"blk\.34\.ffn_(down)_exps=CPU",
    )
    assert over_budget(AIR, one_step_back(placed), budgets) == [1]
    fewer = placed.model_copy(update={"cpu_moe_layers": 12})
    assert over_budget(AIR, fewer, budgets) == [0]


def test_ik_llama_cpp_gets_patterns_where_it_would_divide_a_number_among_gpus() -> None:
    budgets = (24000, 24000)
    placed = auto(AIR, *budgets, kind="ik_llama.cpp")
    assert placed.cpu_moe_layers == 0
    assert placed.tensor_overrides[0].startswith(r"blk\.(1|2|3|")
    assert over_budget(AIR, placed, budgets, kind="ik_llama.cpp") == []
    assert auto(AIR, 39296, kind="ik_llama.cpp").cpu_moe_layers > 0


def test_more_memory_shares_more_layers() -> None:
    placed = auto(AIR, 60000, 30000)
    rules = devices(placed, blocks=47, gpu_memory_mib=(60000, 30000))
    assert [rules.of_blocks.count(gpu) for gpu in (0, 1)] == [32, 16]


@pytest.mark.parametrize("budget_mib", [3000, 12000, 17000, 18300])
def test_a_dense_model_goes_by_layers_as_many_as_fit(budget_mib: int) -> None:
    placed = auto(DENSE, budget_mib)
    layers = placed.gpu_layers
    assert placed == placement(gpu_layers=layers)
    assert isinstance(layers, int)
    assert over_budget(DENSE, placed, [budget_mib]) == []
    assert over_budget(DENSE, placement(gpu_layers=layers + 1), [budget_mib]) == [0]


def test_a_dense_model_may_lack_one_layer_only() -> None:
    least = placement(gpu_layers=61)
    found = estimate(model(DENSE), REALTIME, least, gpu_memory_mib=[1])
    assert auto(DENSE, -(-found.gpus[0].total_bytes // MIB)) == least


def test_a_dense_model_on_two_gpus_goes_by_layers_too() -> None:
    placed = auto(DENSE, 8000, 8000)
    assert isinstance(placed.gpu_layers, int)
    assert placed.tensor_split == (8000.0, 8000.0)
    assert over_budget(DENSE, placed, (8000, 8000)) == []
    rules = devices(placed, blocks=61, gpu_memory_mib=(8000, 8000))
    assert {HOST, 0, 1} == set(rules.of_blocks)


def test_a_mode_that_cuts_matrices_moves_experts_of_both_gpus_at_once() -> None:
    asked = REALTIME.model_copy(update={"split_mode": "graph"})
    budgets = (24200, 24200)
    placed = auto(AIR, *budgets, asked=asked, kind="ik_llama.cpp")
    assert over_budget(AIR, placed, budgets, asked, "ik_llama.cpp") == []
    assert len(placed.tensor_overrides) == 2
    assert over_budget(AIR, one_step_back(placed), budgets, asked, "ik_llama.cpp") == [0, 1]


def test_one_gpu_of_several_is_filled_where_nothing_is_divided() -> None:
    asked = REALTIME.model_copy(update={"split_mode": "none", "main_gpu": 1})
    budgets = (24000, 39296)
    placed = auto(AIR, *budgets, asked=asked)
    assert over_budget(AIR, placed, budgets, asked) == []
    assert over_budget(AIR, one_step_back(placed), budgets, asked) == [1]


def test_the_same_gpus_give_the_same_placement() -> None:
    assert auto(AIR, 39296) == auto(AIR, 39296)
    assert auto(AIR, 39296) != auto(AIR, 30000)


def test_what_cannot_fit_says_how_much_it_lacks() -> None:
    with pytest.raises(DoesNotFitError) as caught:
        auto(AIR, 11000)
    assert str(caught.value) == (
        "GPU 0 of its set needs 11.3 GiB even with everything movable in host memory, "
        "10.7 GiB is available"
    )
    with pytest.raises(DoesNotFitError, match="GPU 1 of its set needs"):
        auto(AIR, 60000, 1500)
    with pytest.raises(DoesNotFitError, match="GPU 0 of its set needs 2.0 GiB"):
        auto(DENSE, 1500)


@pytest.mark.parametrize("budgets", [(0,), (-1,), (40000, 0)])
def test_a_gpu_of_which_nothing_is_left_is_told(budgets: tuple[int, ...]) -> None:
    with pytest.raises(DoesNotFitError, match="no GPU memory is left for it"):
        auto(AIR, *budgets)


def test_a_model_that_is_not_known_cannot_be_placed() -> None:
    with pytest.raises(DoesNotFitError, match='architecture "glm9": its header lacks'):
        place(unknown_model(), REALTIME, kind="llama.cpp", budgets_mib=[40000])
