"""A catalog, a lock and a planner with a profile that vLLM serves."""

from __future__ import annotations

from typing import Any

from corral.catalog.entries import Engine, Model, Quant
from corral.catalog.profile import Profile
from corral.lock.lock_file import LockedEngine, LockedFile, LockedModel
from corral.planning.planner import Planner
from tests.samples import COMMIT, GIB, REVISION
from tests.samples import planner as sample_planner

REPO = "corral-lab/Small"
PROFILE: dict[str, Any] = {
    "model": "small-safetensors",
    "quant": "BF16",
    "engine": "vllm",
    "context_tokens_per_slot": 2048,
    "slots": 4,
}
ON_CPU: dict[str, Any] = {"kv_cache_mib": 512, "placement": "cpu"}
ASKED: dict[str, Any] = {"name": "glm", "profile": "vllm", "port": 8001}
ON_SOCKET: dict[str, Any] = {"name": "glm", "profile": "vllm"}
CONFIG = ("config.json", "tokenizer.json")


def planner(base: Planner | None = None, **changes: Any) -> Planner:
    """A planner whose profile ``vllm`` has some changes."""
    base = base or sample_planner()
    # How a release is made decides nothing of a unit.
    engine = Engine(kind="vllm", repository="https://x/y", commit=COMMIT, targets=("python",))
    quant = Quant(files="*.safetensors", config=("*.json",))
    model = Model(repo=REPO, train_context_tokens=8192, quants={"BF16": quant})
    weights = LockedFile(path="model.safetensors", size_bytes=GIB, sha256="5" * 64)
    config = [
        LockedFile(path=name, size_bytes=100, sha256="6" * 64, kind="config") for name in CONFIG
    ]
    locked = LockedModel(
        repo=REPO,
        requested="main",
        revision=REVISION,
        patterns={"BF16": quant.patterns},
        quants={"BF16": (weights, *config)},
    )
    profile = Profile.model_validate({**PROFILE, **changes})
    known, pins = base.catalog, base.lock
    return base.model_copy(
        update={
            "catalog": known.model_copy(
                update={
                    "engines": {**known.engines, "vllm": engine},
                    "models": {**known.models, "small-safetensors": model},
                    "profiles": {**known.profiles, "vllm": profile},
                }
            ),
            "lock": pins.model_copy(
                update={
                    "engines": {
                        **pins.engines,
                        "vllm": LockedEngine(requested=COMMIT, commit=COMMIT),
                    },
                    "models": {**pins.models, "small-safetensors": locked},
                }
            ),
        }
    )
