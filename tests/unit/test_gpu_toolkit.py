"""Which CUDA toolkit a GPU host gets: absent, right, too old, too young, broken."""

from __future__ import annotations

from corral.drivers import EngineNeeds
from tests.gpu_samples import (
    SOURCE,
    bare_cards,
    decided,
    finding,
    gpu_plan,
    old_driver,
    serving,
    toolkit,
)


def test_an_absent_toolkit_alone_leaves_the_driver() -> None:
    decision = decided(serving(toolkits=()))
    assert decision.install == (SOURCE.toolkit,)
    assert not decision.driver_changes


def test_a_toolkit_that_builds_do_not_find_is_absent() -> None:
    unused = toolkit("12.8").model_copy(update={"used": False})
    assert decided(serving(toolkits=(unused,))).install == (SOURCE.toolkit,)


def test_a_host_that_builds_nothing_for_cuda_needs_no_toolkit() -> None:
    planned = gpu_plan()
    assert planned.gpu_setup
    setup = planned.gpu_setup.model_copy(update={"needs_toolkit": False, "engines": ()})
    only_driver = planned.model_copy(update={"gpu_setup": setup})
    assert decided(old_driver(toolkits=()), only_driver).findings[0].what.startswith("nvidia-open")
    assert decided(bare_cards(), only_driver).install == (SOURCE.driver,)


def test_a_toolkit_too_old_for_the_gpus_is_replaced() -> None:
    blackwell = gpu_plan()
    assert blackwell.gpus
    gpus = blackwell.gpus.model_copy(update={"compute_capability": "12.0"})
    planned = blackwell.model_copy(update={"gpus": gpus})
    assert decided(serving(toolkits=(toolkit("12.6"),)), planned).install == (SOURCE.toolkit,)
    assert decided(serving(toolkits=(toolkit("13.0"),)), planned).install == ()


def test_a_toolkit_that_no_longer_builds_for_the_gpus_is_replaced() -> None:
    volta = gpu_plan()
    assert volta.gpus
    gpus = volta.gpus.model_copy(update={"compute_capability": "7.0"})
    planned = volta.model_copy(update={"gpus": gpus})
    assert decided(serving(toolkits=(toolkit("13.0"),)), planned).install == (SOURCE.toolkit,)


def test_a_toolkit_too_old_for_the_pinned_release_is_replaced() -> None:
    planned = gpu_plan(needs=EngineNeeds(release="vllm 1", minimum_toolkit="12.8"))
    assert decided(serving(toolkits=(toolkit("12.6"),)), planned).install == (SOURCE.toolkit,)


def test_a_toolkit_that_the_catalog_cannot_replace_is_a_finding() -> None:
    planned = gpu_plan(needs=EngineNeeds(release="vllm 1", minimum_toolkit="13.0"))
    what, step = finding(decided(serving(toolkits=(toolkit("12.6"),)), planned))
    assert what == (
        "CUDA toolkit 12.6 is too old: vllm 1 needs 13.0; "
        "the pinned CUDA toolkit 12.8 is too old: vllm 1 needs 13.0"
    )
    assert "catalog/drivers/debian-12.toml" in step


def test_a_toolkit_whose_compiler_does_not_run_is_replaced() -> None:
    assert decided(serving(toolkits=(toolkit(None),))).install == (SOURCE.toolkit,)
