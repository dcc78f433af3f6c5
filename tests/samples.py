"""Small catalogs, locks, hosts and states for tests: fixed digests, nothing read from catalog/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from corral.catalog.drivers import DriverSource, PinnedPackages
from corral.catalog.entries import Catalog, Engine, Model, Platform, Quant
from corral.catalog.profile import Profile
from corral.host.state import Filesystem, HostState, InstanceState, ModelsRoot, ShardState
from corral.inventory.hosts import Host, parse_host
from corral.lock.lock_file import Lock, LockedEngine, LockedFile, LockedModel
from corral.paths import HostPaths
from corral.plan.host import HostPlan
from corral.plan.release import CmakeBuild, ReleasePlan
from corral.planning.planner import PACKAGES, Planner
from tests.headers import MadeHeaders
from tests.requirements import MadeRequirements

ROOT = Path(__file__).resolve().parent.parent
# A checkout with the examples as they are shipped, whatever was made of them in this one.
EXAMPLES = ROOT / "tests" / "data" / "examples"
GIB = 1024**3
COMMIT = "c0" * 20
REVISION = "ab" * 20
REPO = "corral-lab/Small-GGUF"
NOW_SECONDS = 1_800_000_000.0

PROFILE: dict[str, Any] = {
    "model": "small",
    "quant": "Q8_0",
    "engine": "llama.cpp",
    "context_tokens_per_slot": 2048,
    "slots": 2,
    "threads": 3,
}
CHAT: dict[str, Any] = {"name": "chat", "profile": "chat", "port": 8001}
LONG: dict[str, Any] = {"name": "long", "profile": "long", "port": 8002}
SOCKET: dict[str, Any] = {"name": "private", "profile": "socket"}
GPU: dict[str, Any] = {"name": "NVIDIA A100", "count": 2, "compute_capability": "8.0"}


DRIVERS = DriverSource(
    driver=PinnedPackages(version="580.*", packages=("nvidia-open",)),
    toolkit=PinnedPackages(version="12.8.*", packages=("cuda-toolkit-12-8",)),
    toolkit_release="12.8",
)


def catalog(**chat: Any) -> Catalog:
    """One engine, one model in two quants, three profiles; ``chat`` changes the chat profile."""
    engine = Engine(
        kind="llama.cpp",
        repository="https://git.example.com/llama.cpp",
        commit=COMMIT,
        cmake_options={"GGML_NATIVE": "OFF", "BUILD_SHARED_LIBS": "OFF"},
        cmake_options_cuda={"GGML_CUDA": "ON"},
        targets=("llama-server",),
    )
    quants = {"Q8_0": Quant(files="Q8_0/*.gguf"), "F16": Quant(files="F16/*.gguf")}
    profiles = {
        "chat": {**PROFILE, **chat},
        "long": {**PROFILE, "context_tokens_per_slot": 8192, "slots": 1, "metrics": False},
        "socket": {**PROFILE, "listen": "unix"},
    }
    return Catalog(
        platforms={"debian-12": Platform(compiler="12", c_library="2.36", python="3.11")},
        drivers={"debian-12": DRIVERS},
        engines={"llama.cpp": engine},
        models={"small": Model(repo=REPO, train_context_tokens=8192, quants=quants)},
        profiles={name: Profile.model_validate(data) for name, data in profiles.items()},
    )


def built(release: ReleasePlan) -> CmakeBuild:
    """How a release is built; it is one that is."""
    assert isinstance(release.artifact, CmakeBuild)
    return release.artifact


def lock() -> Lock:
    """A lock that agrees with ``catalog()``; F16 comes as two shards."""
    shard = LockedFile(path="Q8_0/Small-Q8_0.gguf", size_bytes=3 * GIB, sha256="1" * 64)
    halves = tuple(
        LockedFile(path=f"F16/Small-F16-0000{n}-of-00002.gguf", size_bytes=GIB, sha256=f"{n}" * 64)
        for n in (1, 2)
    )
    model = LockedModel(
        repo=REPO,
        requested="main",
        revision=REVISION,
        patterns={quant: entry.files for quant, entry in catalog().models["small"].quants.items()},
        quants={"F16": halves, "Q8_0": (shard,)},
    )
    engine = LockedEngine(requested=COMMIT, commit=COMMIT)
    return Lock(engines={"llama.cpp": engine}, models={"small": model})


def planner(*, paths: HostPaths | None = None, **chat: Any) -> Planner:
    """A planner over the samples; ``chat`` changes the chat profile."""
    return Planner(
        headers=MadeHeaders(),
        catalog=catalog(**chat),
        lock=lock(),
        requirements=MadeRequirements(ROOT),
        paths=paths or HostPaths(),
        templates=ROOT / "templates",
    )


def host(*instances: dict[str, Any], name: str = "lab-1", **data: Any) -> Host:
    """A host of an inventory, with the sample hub."""
    hub = {"hub_url": "http://hub.example.com/"}
    return parse_host(name, {**hub, **data, "instances": list(instances)})


def plan(*instances: dict[str, Any], **data: Any) -> HostPlan:
    """The plan of a host with these instances."""
    return planner().plan_host(host(*instances, **data))


def bare(planned: HostPlan, **changes: Any) -> HostState:
    """A fresh Debian 12 host with room for everything; ``changes`` are fields of HostState."""
    wide = {"device": 1, "free_bytes": 500 * GIB}
    fields: dict[str, Any] = {
        "os_id": "debian",
        "os_version": "12",
        "architecture": "x86_64",
        "cpu_flags": ("avx", "avx2", "bmi2", "f16c", "fma"),
        "time_seconds": NOW_SECONDS,
        "systemd": True,
        "watched": not any(instance.gpus for instance in planned.instances),
        "missing_packages": PACKAGES,
        "filesystems": {name: Filesystem(**wide) for name in ("engines", "state", "models")},
        "releases": {release.key: False for release in planned.releases},
        "shards": {s.path: ShardState(proved=False, staged_bytes=0) for s in planned.shards},
        "instances": {i.name: absent() for i in planned.instances},
    }
    return HostState.model_validate({**fields, **changes})


def absent() -> InstanceState:
    """An instance of which the host has nothing."""
    return InstanceState(
        active="inactive",
        sub="dead",
        pid=0,
        restarts=0,
        since="",
        installed_generation=None,
        proved_generation=None,
        key_digest=None,
        staged=False,
        serves=False,
    )


def serving(generation: str, key_digest: str) -> InstanceState:
    """An instance that serves a proved generation with proved keys."""
    return InstanceState(
        active="active",
        sub="running",
        pid=4242,
        restarts=0,
        since="Fri 2026-11-20 10:00:00 UTC",
        installed_generation=generation,
        proved_generation=generation,
        key_digest=key_digest,
        staged=True,
        serves=True,
    )


def settled(planned: HostPlan, key_digest: dict[str, str]) -> HostState:
    """A host that has everything of its plan and serves it; digests of keys by instance."""
    return bare(
        planned,
        missing_packages=(),
        ports_reserved=True,
        watched=True,
        models_root=ModelsRoot(marked=True),
        releases={release.key: True for release in planned.releases},
        shards={s.path: ShardState(proved=True, staged_bytes=0) for s in planned.shards},
        instances={
            i.name: serving(i.generation, key_digest[i.name]).model_dump()
            for i in planned.instances
        },
    )
