"""Profiles and command lines for the tests of the engines."""

from __future__ import annotations

from typing import Any

from corral.catalog.entries import EngineKind
from corral.catalog.profile import Profile
from corral.engines import engine_module, problems, resolve_placement
from corral.engines.flag_table import Settings
from corral.plan.instance import Endpoint

BASE: dict[str, Any] = {
    "model": "small",
    "quant": "Q8_0",
    "engine": "any",
    "context_tokens_per_slot": 2048,
    "slots": 2,
}
# Everything that both engines can say.
PORTABLE: dict[str, Any] = {
    "continuous_batching": False,
    "rope_scaling": {"type": "yarn", "factor": 2.5, "original_context_tokens": 4096},
    "kv_type_k": "q8_0",
    "kv_type_v": "q8_0",
    "kv_on_gpu": False,
    "gpu_layers": 40,
    "cpu_moe_layers": 5,
    "tensor_overrides": ["exps=CPU", "attn=CPU"],
    "split_mode": "layer",
    "tensor_split": [3, 1.5],
    "main_gpu": 1,
    "threads": 6,
    "batch_threads": 12,
    "load_mode": "mmap+mlock",
    "reasoning_format": "deepseek-legacy",
    "reasoning_budget": 0,
    "mtp_draft_tokens": 2,
    "sampling": {
        "temperature": 0.6,
        "top_p": 0.95,
        "min_p": 0.01,
        "top_k": 40,
        "repeat_penalty": 1.1,
    },
    "extra_flags": ["--check-tensors"],
}


def profile(**changes: Any) -> Profile:
    """A small profile with some changes."""
    return Profile.model_validate({**BASE, **changes})


def argv(
    kind: EngineKind,
    made: Profile,
    *,
    gpus: int = 2,
    template: str | None = None,
    endpoint: Endpoint | None = None,
) -> tuple[str, ...]:
    """The command line of a profile on so many GPUs."""
    return engine_module(kind).argv(
        "/x/llama-server",
        Settings(
            profile=made,
            model="/x/model.gguf",
            alias="small",
            endpoint=endpoint or Endpoint(address="127.0.0.1", port=8001),
            key_file="/x/keys",
            placement=resolve_placement(made, gpus=gpus),
            gpus=gpus,
            chat_template_file=template,
        ),
    )


def refusals(kind: EngineKind, gpus: int = 2, **changes: Any) -> str:
    """What an engine cannot do for a profile, in one string."""
    found = problems(kind, profile(**changes), gpus=gpus)
    return "; ".join(f"{what} -> {next_step}" for what, next_step in found)
