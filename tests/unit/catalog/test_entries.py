"""The shipped entries: each can be planned, on the hosts that they are written for."""

from __future__ import annotations

import re
from typing import Any

import pytest

from corral.catalog.entries import Quant, load_catalog
from corral.engines import engine_module, problems
from corral.engines.vllm.memory.count import count
from corral.errors import CorralError
from corral.inventory.hosts import load_inventory, parse_host
from corral.lock.lock_file import Lock, LockedFile, LockedModel
from corral.paths import HOST_PATHS
from corral.plan.instance import InstancePlan
from corral.planning.fleet import plan_fleet
from corral.planning.planner import Planner
from tests.headers import MadeHeaders
from tests.requirements import MadeRequirements, locked
from tests.samples import EXAMPLES, ROOT
from tests.unit.model_dimensions import (
    GLM_4_5_AIR,
    GLM_4_7,
    GLM_4_7_FLASH,
    GLM_4_32B,
    model_of,
)

CATALOG = load_catalog(EXAMPLES / "catalog")
PROD = {host.name: host for host in load_inventory(EXAMPLES / "inventories" / "prod.py")}
A100 = {"name": "NVIDIA A100-PCIE-40GB", "count": 1, "compute_capability": "8.0"}
# So much memory that what a profile says is all that counts.
ONE = {**A100, "memory_mib": 1_000_000}
TWO = {**ONE, "count": 2}
H200 = {"name": "NVIDIA H200", "compute_capability": "9.0"}

# Profiles with keys of one engine, or weights that it alone reads.
ONLY_IK = {"glm-4.7-q4-graph", "glm-4.5-air-iq4-kss", "glm-z1-32b-cpu"}
ONLY_MAINLINE = {"tiny-socket", "glm-4.6v-flash"}
ONLY_VLLM = {name for name, one in CATALOG.profiles.items() if one.engine == "vllm"}


def suffix(entry: Quant) -> str:
    """Of its files of weights."""
    return f".{entry.files.rpartition('.')[2]}"


def projectors(entry: Quant) -> tuple[LockedFile, ...]:
    if entry.projector is None:
        return ()
    return (LockedFile(path="mmproj.gguf", size_bytes=5, sha256="2" * 64, kind="projector"),)


def made_up_lock() -> Lock:
    """An entry for everything in the catalog: a shard for each quant."""
    models = {}
    for name, model in CATALOG.models.items():
        shards: dict[str, tuple[LockedFile, ...]] = {
            quant: (
                LockedFile(path=f"{quant}/x{suffix(entry)}", size_bytes=5, sha256="1" * 64),
                *projectors(entry),
            )
            for quant, entry in model.quants.items()
        }
        models[name] = LockedModel(
            repo=model.repo,
            requested=model.revision,
            revision="ab" * 20,
            patterns={quant: entry.patterns for quant, entry in model.quants.items()},
            quants=shards,
        )
    engines = {name: locked(engine) for name, engine in CATALOG.engines.items()}
    return Lock(engines=engines, models=models)


PLANNER = Planner(
    catalog=CATALOG,
    lock=made_up_lock(),
    requirements=MadeRequirements.of(CATALOG.engines),
    paths=HOST_PATHS,
    templates=ROOT / "templates",
    headers=MadeHeaders(),
)


def planned(profile: str, gpus: dict[str, Any] | None = TWO, **changes: Any) -> InstancePlan:
    """One instance of a shipped profile."""
    port = {} if CATALOG.profiles[profile].listen == "unix" else {"port": 8001}
    instance = {"name": "one", "profile": profile, **port, **changes}
    host = parse_host("h", {"gpus": gpus, "instances": [instance]})
    return PLANNER.plan_host(host).instances[0]


def flags(instance: InstancePlan) -> str:
    return f" {' '.join(instance.argv)} "


@pytest.mark.parametrize("gpus", [None, ONE, TWO], ids=["cpu", "one", "two"])
@pytest.mark.parametrize("engine", ["llama.cpp", "ik_llama.cpp"])
@pytest.mark.parametrize("profile", sorted(CATALOG.profiles))
def test_every_profile_is_planned_on_every_engine_that_can(
    profile: str, engine: str, gpus: dict[str, Any] | None
) -> None:
    excluded = ONLY_VLLM | {"llama.cpp": ONLY_IK, "ik_llama.cpp": ONLY_MAINLINE}[engine]
    wrong_host = profile == "glm-4.7-q4-graph" and gpus == ONE
    if profile in excluded or wrong_host:
        with pytest.raises(Exception, match=f"profile {profile}, engine {engine}"):
            planned(profile, gpus, engine=engine)
    else:
        assert planned(profile, gpus, engine=engine).profile == profile


@pytest.mark.parametrize("host", sorted(PROD))
def test_every_host_of_the_production_example_is_planned(host: str) -> None:
    plan = plan_fleet(list(PROD.values()), PLANNER).plan(host)
    assert [i.name for i in plan.instances] == [i.name for i in PROD[host].spec.instances]


def test_every_model_but_those_of_the_same_shape_has_a_profile() -> None:
    served = {profile.model for profile in CATALOG.profiles.values()}
    assert CATALOG.models.keys() - served == {"glm-4.5", "glm-4.6"}


GLM_47 = "--max-model-len 65536 --tool-call-parser glm47 --reasoning-parser glm45 "
GLM_45 = "--tool-call-parser glm45 --enable-auto-tool-choice --reasoning-parser glm45 "
MTP = """--speculative-config {"method":"mtp","num_speculative_tokens":1} """
# Profile -> its GPUs, and what its command line has: the commands that operators of GLM run.
COMMANDS: dict[str, tuple[int, str]] = {
    "glm-4.5-air-fp8-tp4": (4, f"--tensor-parallel-size 4 {GLM_45}"),
    "glm-4.5-air-fp8-tp8": (8, f"--tensor-parallel-size 8 --max-model-len 131072 {GLM_45}"),
    "glm-4.5-air-fp8-dp4": (4, f"--data-parallel-size 4 --enable-expert-parallel {GLM_45}"),
    "glm-4.5-air-bf16": (4, f"--tensor-parallel-size 4 {GLM_45}"),
    "glm-4.5-fp8": (4, f"--tensor-parallel-size 4 {GLM_45} {MTP}"),
    "glm-4.6-fp8": (4, f"--tensor-parallel-size 4 {GLM_45} {MTP}"),
    "glm-4.7-fp8": (4, f"--tensor-parallel-size 4 {GLM_47} {MTP}"),
    "glm-4.7-fp8-throughput": (
        4,
        f"--max-num-batched-tokens 32768 --gpu-memory-utilization 0.95 {GLM_47}",
    ),
    "glm-4.7-fp8-latency": (4, f"--max-num-batched-tokens 8192 {GLM_47} {MTP}"),
    "glm-4.7-flash-bf16": (1, f"--tensor-parallel-size 1 {GLM_47}"),
    "glm-4-32b-bf16": (1, "--max-model-len 32768 "),
}


@pytest.mark.parametrize("profile", sorted(ONLY_VLLM - {"tiny-vllm"}))
def test_a_profile_of_vllm_is_the_command_of_its_operators(profile: str) -> None:
    count, said = COMMANDS[profile]
    instance = planned(profile, {**H200, "count": count})
    words = list(zip(instance.argv, (*instance.argv[1:], ""), strict=True))
    for flag in re.findall(r"--\S+(?: [^-]\S*)?", said):
        name, _, value = flag.partition(" ")
        assert any(word == name and value in ("", after) for word, after in words), flag
    with pytest.raises(CorralError, match=f"GPUs, but the instance has {count + 1}"):
        planned(profile, {**H200, "count": count + 1})


DIMENSIONS = {
    "glm-4-32b-0414-bf16": model_of(GLM_4_32B),
    "glm-4.5-air-bf16": model_of(GLM_4_5_AIR),
    "glm-4.5-air-fp8": model_of(GLM_4_5_AIR, "fp8-channel"),
    "glm-4.7-flash-bf16": model_of(GLM_4_7_FLASH),
    **dict.fromkeys(
        ["glm-4.5-fp8", "glm-4.6-fp8", "glm-4.7-fp8"], model_of(GLM_4_7, "fp8-channel")
    ),
}


@pytest.mark.parametrize("profile", sorted(ONLY_VLLM - {"tiny-vllm"}))
def test_a_profile_of_vllm_fits_the_gpus_that_it_is_for(profile: str) -> None:
    made, (gpus, _) = CATALOG.profiles[profile], COMMANDS[profile]
    found = count(DIMENSIONS[made.model], made, gpu_memory_mib=[143771] * gpus)
    assert found.refusal == ""
    assert found.cache is not None
    assert found.cache.requests > 5


def test_the_tiny_model_is_served_by_vllm_without_gpus() -> None:
    """By the lab's own engine: the shipped one is for CUDA."""
    profile = CATALOG.profiles["tiny-vllm"]
    assert problems("vllm", profile, gpus=0) == []
    assert (profile.tool_call_parser, profile.reasoning_parser) == ("glm45", "glm45")
    with pytest.raises(CorralError, match="engine vllm is for cuda, the host's back end is cpu"):
        planned("tiny-vllm", None)
    with pytest.raises(CorralError, match="and profile tiny-vllm uses no GPU") as caught:
        planned("tiny-vllm", ONE)
    assert caught.value.next_step == 'set placement = "gpu" in profile tiny-vllm'


def test_vllm_of_the_production_example_is_open_to_its_gateway_alone() -> None:
    (instance,) = plan_fleet(list(PROD.values()), PLANNER).plan("gpu-03").instances
    assert instance.clients == ("localhost", "10.20.0.2")


def test_every_gpu_of_the_production_example_is_in_the_catalog() -> None:
    for host in PROD.values():
        if gpus := host.spec.gpus:
            known = CATALOG.gpu(gpus.name, where=host.name)
            assert known.compute_capability == gpus.compute_capability


@pytest.mark.parametrize(
    ("profile", "context_tokens", "kv", "batch", "ubatch", "slots"),
    [
        ("glm-4.5-air-realtime", 32768, "q8_0", 2048, 1024, 1),
        ("glm-4.5-air-experts-on-cpu", 32768, "q8_0", 2048, 1024, 1),
        ("glm-4.5-air-long-context", 65536, "q4_0", 1024, 512, 1),
        ("glm-4.5-air-throughput", 32768, "q8_0", 4096, 2048, 2),
        ("glm-4.5-air-quality", 32768, "q8_0", 2048, 1024, 1),
    ],
)
def test_air_has_its_profiles(
    profile: str, context_tokens: int, kv: str, batch: int, ubatch: int, slots: int
) -> None:
    instance = planned(profile, A100)
    for words in (
        f"--ctx-size {context_tokens} --parallel {slots}",
        f"--cache-type-k {kv} --cache-type-v {kv} --flash-attn on",
        f"--batch-size {batch} --ubatch-size {ubatch}",
        "--n-gpu-layers all",
        "--load-mode mmap",
        "--jinja --reasoning-format auto",
        "--metrics",
    ):
        assert f" {words} " in flags(instance)
    assert "Environment=CUDA_VISIBLE_DEVICES=0\n" in instance.unit_text


def test_air_quality_samples_as_told() -> None:
    words = flags(planned("glm-4.5-air-quality", A100))
    assert " --temp 0.6 --top-p 0.95 --repeat-penalty 1.1 " in words


def test_air_experts_on_cpu_is_the_classic_recipe() -> None:
    assert " --n-gpu-layers all --fit off --cpu-moe " in flags(
        planned("glm-4.5-air-experts-on-cpu", A100)
    )


def test_the_four_h200_serve_what_they_serve_on_their_ports() -> None:
    plan = PLANNER.plan_host(PROD["gpu-01"])
    found = {i.endpoint.port: (i.name, i.model, i.context_tokens_per_slot) for i in plan.instances}
    assert found == {
        4401: ("glm-4.7-q2", "glm-4.7", 131072),
        4402: ("glm-4.7-flash-q4", "glm-4.7-flash", 65536),
        4403: ("glm-4.7-flash-q4-b", "glm-4.7-flash", 65536),
        5001: ("deepseek-v2.5", "deepseek-v2.5", 16384),
    }
    assert plan.instances[1].shards == plan.instances[2].shards
    for instance in plan.instances:
        assert instance.endpoint.address == "0.0.0.0"
        assert instance.gpus == (0, 1, 2, 3)
    sampling = "--temp 1.0 --top-p 0.95 --min-p 0.01 --repeat-penalty 1.0"
    assert sampling in flags(plan.instances[1])
    assert " --threads 32 " in flags(plan.instances[1])


def test_the_graph_row_is_said_in_full() -> None:
    instance = PLANNER.plan_host(PROD["rtx8000-01"]).instances[0]
    pattern = r"blk\.(29|[3-9][0-9])\.ffn_(up|gate|down)_exps\.weight=CPU"
    assert instance.endpoint.url == "http://0.0.0.0:15000"
    for words in (
        "--n-gpu-layers 999",
        "--threads 64 --threads-batch 64",
        "--batch-size 4096 --ubatch-size 4096",
        "--split-mode graph",
        "--no-mmap",
        f"--override-tensor {pattern}",
        "--ctx-size 38912",
        "--flash-attn on",
        "--graph-reuse --split-mode-graph-scheduling",
        "--cache-ram 32768",
    ):
        assert f" {words} " in flags(instance)


def test_glm_z1_runs_on_both_engines_and_on_the_cpu() -> None:
    for engine, layers in (("llama.cpp", "all"), ("ik_llama.cpp", "999")):
        words = flags(planned("glm-z1-32b", A100, engine=engine))
        assert " --ctx-size 32768 " in words
        assert " --cache-type-k f16 --cache-type-v f16 --flash-attn on " in words
        assert f" --n-gpu-layers {layers} " in words
    cpu = flags(PLANNER.plan_host(PROD["cpu-01"]).instances[0])
    for words in (
        "--ctx-size 5120",
        "--cache-type-k q8_0 --cache-type-v q8_0",
        "--n-gpu-layers 0",
        "--threads 16",
        "--run-time-repack",
    ):
        assert f" {words} " in cpu
    low = flags(planned("glm-z1-32b-low-vram", A100))
    assert " --n-gpu-layers 59 --override-tensor attn=CPU --no-kv-offload " in low
    # It has no effect on a model without latent attention, with flash attention.
    assert "--attention-max-batch" not in low


def test_engines_are_pinned_to_commits_that_served() -> None:
    # An image of a site's own is an example to adapt, and has no commit.
    built = {name: e for name, e in CATALOG.engines.items() if not e.image}
    shipped = {name: e for name, e in built.items() if "lab" not in name}
    served = {name: e.commit[:12] for name, e in shipped.items() if e.python is None}
    environments = {name: e.python.requirements for name, e in shipped.items() if e.python}
    assert environments == {"vllm": ("vllm==0.33.0",)}
    assert served == {
        "llama.cpp": "0c1e57098bba",
        "ik_llama.cpp": "8337e4cd3861",
    }
    for engine in (one for one in built.values() if one.python is None):
        assert engine_module(engine.kind).program in engine.targets
        assert engine.cmake_options["GGML_RPC"] == "OFF"
        assert engine.cmake_options["GGML_NATIVE"] == "OFF"
