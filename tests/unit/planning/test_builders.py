"""Which host builds which release, and what is said about the others."""

from __future__ import annotations

from typing import Any

from corral.inventory.hosts import Host
from corral.plan.fleet import Build
from corral.planning.builders import builds, differences
from tests.samples import CHAT, GPU, LONG, built, host, planner

ADA: dict[str, Any] = {**GPU, "name": "NVIDIA L40S", "compute_capability": "8.9"}


def fleet(*hosts: Host) -> list[Build]:
    return list(builds(hosts, {h.name: planner().releases(h) for h in hosts}).values())


def only(found: list[Build]) -> Build:
    (one,) = found
    return one


def test_hosts_with_equal_keys_share_one_build_by_the_first() -> None:
    build = only(fleet(*(host(CHAT, name=f"gpu-{n}", gpus=GPU) for n in (1, 2, 3))))
    assert (build.builder, build.receivers) == ("gpu-1", ("gpu-2", "gpu-3"))
    assert build.because == "the first of 3 hosts with this key"
    assert build.candidates == ("gpu-1", "gpu-2", "gpu-3")


def test_other_gpus_are_another_build() -> None:
    first, second = fleet(host(CHAT, name="a", gpus=GPU), host(CHAT, name="b", gpus=ADA))
    assert (first.builder, second.builder) == ("a", "b")
    assert first.because == "the only host with this key"
    assert differences(first.release, second.release) == [
        "CMAKE_CUDA_ARCHITECTURES: 80 here, 89 there"
    ]


def test_a_marked_builder_builds_though_it_runs_nothing_and_others_stand_in() -> None:
    box = host(name="box", builder=True)
    build = only(fleet(host(CHAT, name="a"), host(CHAT, name="b"), box))
    assert build.candidates == ("box", "a", "b")
    assert build.receivers == ("a", "b")
    assert build.because == "a builder of debian-12"


def test_of_two_builders_the_one_that_runs_it_is_first() -> None:
    found = only(fleet(host(name="box", builder=True), host(CHAT, name="b", builder=True)))
    assert found.candidates == ("b", "box")


def test_a_builder_of_another_platform_builds_nothing() -> None:
    other = host(name="box", builder=True, platform="ubuntu-24.04")
    assert only(fleet(host(CHAT, name="a"), other)).candidates == ("a",)


def test_a_native_release_is_its_host_s_alone() -> None:
    first, second = fleet(
        host(CHAT, name="a", native_build=True),
        host(CHAT, name="b", native_build=True, builder=True),
    )
    assert (first.candidates, second.candidates) == (("a",), ("b",))
    assert first.release.key != second.release.key
    assert first.because == "native: for its own processor"
    assert "-DGGML_NATIVE=ON" in built(first.release).cmake_options


def test_two_instances_of_a_host_are_one_build() -> None:
    assert only(fleet(host(CHAT, LONG, name="a"))).users == ("a",)


def test_a_fleet_without_instances_builds_nothing() -> None:
    assert fleet(host(name="box", builder=True)) == []
