"""Which CUDA toolkit a GPU host gets: absent, right, another, broken, or built elsewhere."""

from __future__ import annotations

import pytest

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


def test_the_planned_toolkit_is_enough_wherever_it_is_among_others() -> None:
    kits = (toolkit("13.0"), toolkit("12.8"))
    assert decided(serving(toolkits=kits)).install == ()


@pytest.mark.parametrize("version", ["12.6", "13.0", None])
def test_another_toolkit_or_a_broken_one_gets_the_planned_one_beside_it(
    version: str | None,
) -> None:
    assert decided(serving(toolkits=(toolkit(version),))).install == (SOURCE.toolkit,)


def test_a_host_that_builds_nothing_needs_the_driver_of_the_toolkit_but_no_toolkit() -> None:
    receiver = gpu_plan().model_copy(update={"builds": ()})
    assert decided(serving(toolkits=()), receiver).install == ()
    assert decided(bare_cards(), receiver).install == (SOURCE.driver,)
    what, _ = finding(decided(old_driver(toolkits=()), receiver))
    assert "CUDA toolkit 12.8 needs 570.26" in what


def test_a_host_without_a_build_for_cuda_needs_no_toolkit() -> None:
    planned = gpu_plan()
    assert planned.gpu_setup
    setup = planned.gpu_setup.model_copy(update={"toolkit": None, "engines": ()})
    only_driver = planned.model_copy(update={"gpu_setup": setup})
    assert decided(bare_cards(), only_driver).install == (SOURCE.driver,)


def test_a_toolkit_that_the_catalog_does_not_pin_is_a_finding() -> None:
    planned = gpu_plan()
    assert planned.gpu_setup
    setup = planned.gpu_setup.model_copy(update={"toolkit": "12.4"})
    asked = planned.model_copy(update={"gpu_setup": setup})
    what, step = finding(decided(serving(toolkits=(toolkit("12.6"),)), asked))
    assert what == "CUDA toolkit 12.4 is not installed, only 12.6 is; debian-12 pins 12.8"
    assert '"cuda_toolkit"' in step
    what, _ = finding(decided(serving(toolkits=()), asked))
    assert what == "CUDA toolkit 12.4 is not installed, none is; debian-12 pins 12.8"
