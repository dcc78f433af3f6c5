"""Generations: a changed value makes a new one, of the instance that it concerns and no other."""

from __future__ import annotations

from typing import Any

import pytest

from corral.catalog.profile import Profile
from corral.plan.instance import InstancePlan
from corral.planning.planner import Planner
from tests.samples import CHAT, GPU, LONG, host, lock, plan, planner


def chat(**changes: Any) -> InstancePlan:
    """The chat instance under a changed profile."""
    return planner(**changes).plan_host(host(CHAT)).instances[0]


CHANGES: dict[str, Any] = {
    "alias": "other",
    "context_tokens_per_slot": 1024,
    "slots": 3,
    "kv_type_k": "q8_0",
    "kv_type_v": "q8_0",
    "flash_attention": False,
    "batch_tokens": 1024,
    "ubatch_tokens": 256,
    "threads": 4,
    "prompt_cache_mib": 0,
    "metrics": False,
    "reasoning_format": "none",
    "sampling": {"temperature": 0.5},
    "quant": "F16",
    "continuous_batching": False,
    "rope_scaling": {"type": "linear", "factor": 2},
    "batch_threads": 5,
    "load_mode": "mlock",
    "chat_template": "chatml",
    "reasoning_budget": 0,
    "mtp_draft_tokens": 1,
    "extra_flags": ["--check-tensors"],
    "numa": "distribute",
}
ON_GPU: dict[str, Any] = {
    "placement": "experts-on-cpu",
    "gpu_layers": 9,
    "cpu_moe_layers": 3,
    "tensor_overrides": ["exps=CPU"],
    "split_mode": "none",
    "tensor_split": [3, 1],
    "main_gpu": 1,
    "kv_on_gpu": False,
}
# These need another catalog, another engine, another instance, or change no argument.
ELSEWHERE = {
    "model",
    "engine",
    "listen",
    "ready_timeout_seconds",
    "gpu_reserve_mib",
    "chat_template_file",
    "golden",
    "speed",
    "perplexity",
    "soak_seconds",
    "probe_tool_call",
    "probe_reasoning",
    "runtime_repack",
    "attention_max_batch_mib",
    "mla_mode",
    "graph_reuse",
    "split_mode_graph_scheduling",
    "fused_moe",
    "tensor_parallel",
    "data_parallel",
    "expert_parallel",
    "gpu_memory_utilization",
    "kv_cache_mib",
    "cpu_cores",
    "eager",
    "prefix_caching",
    "tool_call_parser",
    "reasoning_parser",
    "watchdog",
    "tune_kv_types",
    "numa_memory",
    "numa_nodes",
    "vision",
    "image_tokens",
    "draft_model",
    "draft_tokens",
    "lora",
}


def test_every_field_of_a_profile_is_accounted_for_here() -> None:
    assert CHANGES.keys() | ON_GPU.keys() | ELSEWHERE == Profile.model_fields.keys()


@pytest.mark.parametrize("field", CHANGES)
def test_a_changed_value_makes_a_new_generation_of_that_instance_only(field: str) -> None:
    before = plan(CHAT, LONG).instances
    after = planner(**{field: CHANGES[field]}).plan_host(host(CHAT, LONG)).instances
    assert after[0].argv != before[0].argv
    assert after[0].generation != before[0].generation
    assert after[1] == before[1]


@pytest.mark.parametrize("flag", ["temperature", "top_p", "min_p", "top_k", "repeat_penalty"])
def test_each_sampling_default_reaches_the_command_line(flag: str) -> None:
    assert chat(sampling={flag: 1}).argv != chat().argv


def test_a_longer_patience_restarts_nothing() -> None:
    assert chat(ready_timeout_seconds=7).generation == chat().generation
    assert chat(ready_timeout_seconds=7).ready_timeout_seconds == 7


@pytest.mark.parametrize("field", ON_GPU)
def test_placement_counts_only_where_there_is_a_gpu(field: str) -> None:
    changed = planner(**{field: ON_GPU[field]})
    before = plan(CHAT, gpus=GPU).instances[0]
    assert changed.plan_host(host(CHAT, gpus=GPU)).instances[0].generation != before.generation
    assert changed.plan_host(host(CHAT)).instances[0].generation == chat().generation


def with_other_digests() -> Planner:
    """A planner whose lock has other bytes at the same path."""
    text = lock().model_dump_json().replace("1" * 64, "9" * 64)
    return planner().model_copy(update={"lock": type(lock()).model_validate_json(text)})


def test_other_weights_at_the_same_path_make_a_new_generation() -> None:
    changed = with_other_digests().plan_host(host(CHAT)).instances[0]
    assert changed.argv == chat().argv
    assert changed.generation != chat().generation
