"""The key of a release covers all that decides its bytes, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from corral.catalog.entries import Catalog, Platform
from corral.errors import CorralError
from corral.plan.release import ReleasePlan
from corral.planning.planner import Planner
from tests.samples import CHAT, DRIVERS, GPU, LONG, built, catalog, host, planner

OTHER = {
    "ubuntu-24.04": Platform(compiler="13", c_library="2.39", python="3.11"),
    "debian-12": Platform(compiler="12", c_library="2.36", python="3.11"),
}


def platform(**tools: str) -> dict[str, Any]:
    """A catalog whose platform has these tools."""
    return {"known": {"platforms": {"debian-12": Platform(python="3.11", **tools)}}}


def release(*, engine: dict[str, Any] | None = None, known: dict[str, Any] | None = None,
            instance: dict[str, Any] = CHAT, **data: Any) -> ReleasePlan:  # fmt: skip
    """The release of one instance; ``engine`` and ``known`` change the engine and the catalog."""
    there = catalog()
    changed = there.engines["llama.cpp"].model_copy(update=engine or {})
    fields = {"engines": {"llama.cpp": changed}, **(known or {})}
    one = planning(there.model_copy(update=fields))
    (found,) = one.releases(host(instance, **data))
    return found


def planning(there: Catalog) -> Planner:
    return planner().model_copy(update={"catalog": there})


BASE = release()


@pytest.mark.parametrize(
    "changes",
    [
        {"engine": {"cmake_options": {"GGML_NATIVE": "OFF"}}},
        {"engine": {"targets": ("llama-server", "llama-bench")}},
        {"engine": {"patches": ("a.patch",)}, "known": {"patches": {"a.patch": "+1"}}},
        {"platform": "ubuntu-24.04", "known": {"platforms": OTHER}},
        {
            "known": {
                "platforms": {"debian-12": Platform(compiler="13", c_library="2.36", python="3.11")}
            }
        },
        {
            "known": {
                "platforms": {"debian-12": Platform(compiler="12", c_library="2.37", python="3.11")}
            }
        },
        {"gpus": GPU},
        {"native_build": True},
    ],
    ids=["options", "targets", "patch", "platform", "compiler", "c-library", "cuda", "native"],
)
def test_what_decides_the_bytes_is_in_the_key(changes: dict[str, Any]) -> None:
    assert release(**changes).key != BASE.key


def test_on_gpus_the_toolkit_the_architecture_and_kv_pairs_are_in_the_key() -> None:
    ada = {**GPU, "compute_capability": "8.9"}
    keys = {
        release(gpus=GPU).key,
        release(gpus=ada).key,
        release(gpus=GPU, cuda_toolkit="12.6").key,
        planner(kv_type_k="q8_0", kv_type_v="q4_0").releases(host(CHAT, gpus=GPU))[0].key,
    }
    assert len(keys) == 4


def test_the_text_of_a_patch_is_in_the_key_and_travels_with_the_plan() -> None:
    one, other = (
        release(engine={"patches": ("a.patch",)}, known={"patches": {"a.patch": text}})
        for text in ("+1", "+2")
    )
    assert one.key != other.key
    assert [patch.text for patch in built(other).patches] == ["+2"]


@pytest.mark.parametrize("data", [{"name": "lab-9"}, {"engine_sources": {"llama.cpp": "git://x"}}])
def test_where_it_is_built_and_fetched_from_is_not(data: dict[str, Any]) -> None:
    assert release(**data).key == BASE.key


def test_another_instance_is_not() -> None:
    assert release(instance=LONG).key == BASE.key


def test_the_plan_says_with_what_it_is_built() -> None:
    found = release(gpus=GPU)
    assert built(found).toolchain.model_dump() == {
        "platform": "debian-12",
        "compiler": "12",
        "c_library": "2.36",
        "cuda_toolkit": DRIVERS.toolkit_release,
    }
    assert built(BASE).toolchain.cuda_toolkit is None


@pytest.mark.parametrize(
    ("data", "what", "step"),
    [
        ({"platform": "debian-21"}, 'unknown platform "debian-21"', "catalog/platforms/"),
        ({"gpus": {**GPU, "compute_capability": "12.0"}, "cuda_toolkit": "12.4"},
         "CUDA toolkit 12.4 cannot build for compute capability 12.0: it needs 12.8",
         '"cuda_toolkit"'),
        ({"gpus": {**GPU, "compute_capability": "7.0"}, "cuda_toolkit": "13.0"},
         "CUDA toolkit 13.0 cannot build for compute capability 7.0: support was dropped",
         '"cuda_toolkit"'),
        ({"gpus": {**GPU, "compute_capability": "10.3"}, "cuda_toolkit": "12.8"},
         "CUDA toolkit 12.8 cannot build for compute capability 10.3: it needs 12.9",
         '"cuda_toolkit"'),
        ({"gpus": {**GPU, "compute_capability": "10.7"}, "cuda_toolkit": "13.0"},
         "no CUDA toolkit is known to build for compute capability 10.7",
         "corral/nvidia/versions.py"),
        ({"gpus": GPU, "engine": {"minimum_toolkit": "13.0"}},
         "CUDA toolkit 12.8 is too old: llama.cpp needs 13.0", '"cuda_toolkit"'),
        ({"gpus": GPU, "known": {"drivers": {}}}, "no CUDA toolkit is configured for debian-12",
         "catalog/drivers/debian-12.toml"),
        ({"engine": {"patches": ("b.patch",)}, "known": {"patches": {"a.patch": ""}}},
         'unknown patch "b.patch"', "catalog/patches/"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_one_message(data: dict[str, Any], what: str, step: str) -> None:
    with pytest.raises(CorralError) as caught:
        release(**data)
    assert what in str(caught.value)
    assert step in str(caught.value)
