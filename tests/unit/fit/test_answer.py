"""What an instance needs on each device against what is there: rows and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from corral.catalog.entries import EngineKind
from corral.errors import CorralError
from corral.fit.answer import HOST_RESERVE_MIB, Answer, Row, TargetGpu, answer, host_row
from corral.fit.estimate import DRIVER_MIB
from corral.fit.model import ModelFile
from corral.fit.place import DoesNotFitError
from corral.plan.placement import DeviceNeed
from tests.unit.fit_samples import (
    A100_MIB,
    AIR,
    DENSE,
    FLASH,
    model,
    placement,
    profile,
    unknown_model,
)

A100 = TargetGpu("GPU 0", A100_MIB)
EXPERTS_ON_CPU = {"experts_on_cpu": True}


def ask(
    of: ModelFile | None = None,
    targets: Sequence[TargetGpu] = (A100,),
    host_memory_mib: int | None = 131072,
    kind: EngineKind = "llama.cpp",
    placed: dict[str, Any] | None = None,
    **asked: Any,
) -> Answer:
    """Of the dense model; ``asked`` are keys of its profile."""
    return answer(
        of or model(DENSE),
        profile(**asked),
        placement(**placed or {}),
        kind=kind,
        targets=targets,
        host_memory_mib=host_memory_mib,
        name="p",
    )


def of_host(memory_mib: int | None, *, mapped: bool = True, others_mib: int = 0) -> Row:
    """A host that keeps 60 GiB of weights and 10 GiB beside them."""
    need = DeviceNeed(weights_mib=61440, kv_mib=0, compute_mib=1024, runtime_mib=9216)
    return host_row(need, memory_mib, mapped=mapped, others_mib=others_mib)


def test_what_is_free_is_the_memory_without_the_driver_the_others_and_the_need() -> None:
    for others_mib in (0, 5000):
        gpu, host = ask(targets=[TargetGpu("GPU 3", A100_MIB, others_mib)]).rows
        needed_mib = gpu.weights_mib + gpu.kv_mib + gpu.compute_mib + gpu.runtime_mib
        assert gpu.free_mib == A100_MIB - DRIVER_MIB - others_mib - needed_mib
        assert (gpu.device, gpu.memory_mib, gpu.others_mib) == ("GPU 3", A100_MIB, others_mib)
        assert (gpu.verdict, host.device) == ("fits", "host")


def test_what_is_too_large_says_by_how_much() -> None:
    found = ask(slots=16)
    gpu, host = found.rows
    assert (gpu.weights_mib, gpu.kv_mib, gpu.free_mib) == (16304, 31232, -8155)
    assert gpu.verdict == "8.0 GiB too little"
    assert (gpu.fits, host.fits, found.fits) == (False, True, False)


def test_a_gpu_that_is_used_up_has_nothing_and_not_less() -> None:
    assert TargetGpu("GPU 0", 1000, 5000).available_mib == 0


def test_every_gpu_must_have_room_for_its_part() -> None:
    targets = [A100, TargetGpu("GPU 1", A100_MIB, 35000)]
    found = ask(targets=targets)
    assert [row.fits for row in found.rows] == [True, False, True]
    assert not found.fits
    assert found.placement.tensor_split == (1.0, 1.0)


def test_auto_is_decided_by_what_is_there_less_the_reserve() -> None:
    for others_mib, reserve_mib in ((0, 1024), (10000, 1024), (0, 5000)):
        targets = [TargetGpu("GPU 0", A100_MIB, others_mib)]
        asked: dict[str, Any] = {"placement": "auto", "gpu_reserve_mib": reserve_mib}
        free_mib = ask(model(AIR), targets, **asked).rows[0].free_mib
        assert free_mib
        assert reserve_mib <= free_mib < reserve_mib + 1000


def test_auto_that_has_no_way_is_told() -> None:
    with pytest.raises(DoesNotFitError, match="needs 1"):
        ask(model(AIR), [TargetGpu("GPU 0", 8000)], placement="auto")


def test_of_an_unknown_model_weights_are_counted_and_it_does_not_fit() -> None:
    for asked in ("experts-on-cpu", "auto"):
        found = ask(unknown_model(), placed=EXPERTS_ON_CPU, placement=asked)
        gpu, host = found.rows
        assert found.unknown.startswith('architecture "glm9": its header lacks')
        assert (gpu.weights_mib, host.weights_mib) == (7571, 71173)
        assert (gpu.kv_mib, gpu.compute_mib, gpu.runtime_mib, host.runtime_mib) == (0, 0, 0, 0)
        assert (gpu.fits, host.fits, found.fits) == (True, True, False)
        assert {gpu.verdict, host.verdict} == {"its weights fit, the rest is unknown"}


def test_of_an_unknown_model_too_many_weights_are_told_as_such() -> None:
    gpu = ask(unknown_model(), [TargetGpu("GPU 0", 8000)], placed=EXPERTS_ON_CPU).rows[0]
    assert gpu.verdict.endswith("GiB too little")


def test_unequal_gpus_share_a_model_by_their_memory() -> None:
    cards = [TargetGpu("GPU 0", 49140, others_mib=500), TargetGpu("GPU 1", 24564)]
    found = ask(targets=cards)
    assert found.placement.tensor_split == (49140.0, 24564.0)
    large, small, _ = found.rows
    assert 1.7 < large.weights_mib / small.weights_mib < 2.3
    given = ask(targets=cards, placed={"tensor_split": (1.0, 1.0)})
    assert given.placement.tensor_split == (1.0, 1.0)
    equal = ask(targets=[A100, A100])
    assert equal.placement.tensor_split == (1.0, 1.0)


def test_without_gpus_the_host_has_all_of_it() -> None:
    (host,) = ask(targets=(), placed={"gpu_layers": 0}, placement="cpu").rows
    assert (host.weights_mib > 16000, host.kv_mib) == (True, 1952)


def test_what_the_header_forbids_is_refused_with_the_profile() -> None:
    with pytest.raises(CorralError, match="latent attention has one cache") as caught:
        ask(model(FLASH), kv_type_v="q8_0")
    assert caught.value.where == "corral fit/m: profile p"
    with pytest.raises(CorralError, match="buffer CUDA1"):
        ask(placed={"tensor_overrides": ("ffn=CUDA1",)})


def test_the_engine_counts() -> None:
    plain, other = ask().rows[0], ask(kind="ik_llama.cpp").rows[0]
    # Its pools count as compute: they grow with a prompt.
    assert (plain.runtime_mib, other.runtime_mib) == (600 + 136, 600 + 100)
    assert other.compute_mib > plain.compute_mib + 136


def test_memory_that_is_not_known_is_no_verdict() -> None:
    row = of_host(None)
    assert (row.memory_mib, row.free_mib, row.fits) == (None, None, True)
    assert row.verdict == "memory unknown, use --ram"


def test_a_host_with_room_for_all_and_a_reserve_fits() -> None:
    row = of_host(71680 + HOST_RESERVE_MIB)
    assert (row.verdict, row.free_mib) == ("fits", HOST_RESERVE_MIB)


@pytest.mark.parametrize("memory_mib", [71680 + HOST_RESERVE_MIB - 1, 71680, 71679, 10240])
def test_mapped_weights_may_be_read_from_the_disk_which_is_said(memory_mib: int) -> None:
    row = of_host(memory_mib)
    assert row.verdict == "fits, but weights will be read from disk again and again"
    assert (row.fits, row.free_mib) == (True, max(memory_mib - 71680, 0))


def test_what_is_not_mapped_must_fit() -> None:
    row = of_host(10239)
    assert (row.fits, row.free_mib, row.verdict) == (False, -1, "0.0 GiB too little")
    assert of_host(71680, mapped=False).verdict == "fits"
    assert of_host(70656, mapped=False).verdict == "1.0 GiB too little"


def test_what_others_hold_of_a_host_is_not_there() -> None:
    row = of_host(71680 + HOST_RESERVE_MIB + 5000, others_mib=5001)
    assert (row.free_mib, row.others_mib) == (HOST_RESERVE_MIB - 1, 5001)
    assert row.verdict.startswith("fits, but")
    assert not of_host(20000, others_mib=9761).fits


@pytest.mark.parametrize(
    ("load_mode", "fits"),
    [("mmap", True), ("mmap+mlock", False), ("mlock", False), ("none", False), ("direct", False)],
)
def test_only_plainly_mapped_weights_need_not_stay_in_memory(load_mode: str, fits: bool) -> None:
    found = ask(model(AIR), placed=EXPERTS_ON_CPU, host_memory_mib=60000, load_mode=load_mode)
    assert found.fits is fits
