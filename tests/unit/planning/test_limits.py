"""The time that a server gets to start."""

from __future__ import annotations

from tests.samples import CHAT, host
from tests.samples import planner as sample_planner
from tests.unit.vllm_samples import ASKED, ON_CPU, planner

GIB = 1024**3


def test_a_server_of_vllm_gets_longer_to_start_for_each_gib_as_long_as_others() -> None:
    vllm = planner(sample_planner(), **ON_CPU).plan_host(host(ASKED))
    chat = sample_planner().plan_host(host(CHAT))
    for plan, start_seconds in ((vllm, 900), (chat, 300)):
        weights_gib = -(-sum(shard.size_bytes for shard in plan.shards) // GIB)
        assert weights_gib > 0
        assert plan.instances[0].ready_timeout_seconds == start_seconds + 20 * weights_gib


def test_a_profile_may_set_it() -> None:
    shorter = planner(sample_planner(), **ON_CPU, ready_timeout_seconds=7)
    assert shorter.plan_host(host(ASKED)).instances[0].ready_timeout_seconds == 7
