"""How two counts of an instance's memory, the engine's and the plan's, are combined."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral.plan.placement import DeviceNeed
from tests.unit.proof_host import CHAT, NEED, ON_GPUS, ProofHost, with_instances, with_need
from tests.unit.running_hub import RunningHub

pytestmark = pytest.mark.slow


@pytest.fixture
def host(tmp_path: Path, running: RunningHub) -> ProofHost:
    return ProofHost(tmp_path, running.url)


def test_what_is_needed_is_the_larger_of_two_exact_counts_and_the_smaller_bound(
    host: ProofHost,
) -> None:
    plan = with_need(host.plan({**CHAT, "gpus": [0]}, **ON_GPUS), NEED)
    host.gpus(40000, 40000)
    host.tool(plan, "CUDA0 20001 1999 1500 \nHost 1 1 1 ")
    (verdict,) = host.prove(plan)
    row = verdict.rows[0]
    assert (row.device, row.needs_mib, row.there_mib) == ("GPU 0", 20001 + 2000 + 900 + 736, 40000)
    line = verdict.lines()[0]
    assert "llama-fit-params 20001 + 1999 + 1500, planned 20000 + 2000 + 900" in line
    assert "beside them 736)" in line


@pytest.mark.parametrize(("free_mib", "fits"), [(23637, True), (23636, False)])
def test_it_fits_to_the_last_mib(host: ProofHost, free_mib: int, fits: bool) -> None:
    plan = with_need(host.plan({**CHAT, "gpus": [0]}, **ON_GPUS), NEED)
    host.gpus(free_mib, 40000)
    host.tool(plan, "CUDA0 20001 1999 1500 \nHost 1 1 1 ")
    (verdict,) = host.prove(plan)
    assert verdict.ok is fits
    what, _, next_step = verdict.message.partition("\n  Next: ")
    if not fits:
        assert what.startswith("chat: GPU 0: 23.1 GiB needed, 23.1 GiB is there (free 23.1 GiB")
        fit = "`corral fit tiny-glm-moe/Q8_0 --profile tiny-chat --host lab-1`"
        assert next_step.startswith('choose placement = "auto"')
        assert fit in next_step


def test_more_than_main_memory_is_refused(host: ProofHost) -> None:
    plan = host.plan(CHAT)
    host.tool(plan, "Host 0 10240000 1 ")
    (verdict,) = host.prove(plan)
    assert verdict.message.startswith("chat: host memory: 10000.6 GiB needed, ")
    assert "fewer slots or a smaller prompt_cache_mib" in verdict.message


def test_mapped_weights_beyond_memory_are_slow_not_wrong(host: ProofHost) -> None:
    plan = host.plan(CHAT)
    host.tool(plan, "Host 99999999 1 1 ")
    (verdict,) = host.prove(plan)
    assert verdict.ok
    assert "of weights are mapped and" in verdict.lines()[-1]


def test_weights_that_the_engine_repacks_are_not_mapped(host: ProofHost) -> None:
    """Measured: of 76220 MiB the CPU build maps 40580 and repacks 35640 into memory of its own."""
    weights = DeviceNeed(weights_mib=10240000, kv_mib=0, compute_mib=0, runtime_mib=0)
    plan = with_need(host.plan(CHAT), host=weights)
    host.tool(plan, "Host 10239000 1 1 ")
    assert host.prove(plan)[0].rows[0].needs_mib == 1000 + 1 + 1
    host.tool(plan, "Host 1024 1 1 ")
    assert "9999.0 GiB needed" in host.prove(plan)[0].message


def test_a_draft_block_computes_beside_what_the_engine_counts(host: ProofHost) -> None:
    plan = with_need(host.plan({**CHAT, "gpus": [0]}, **ON_GPUS), NEED)
    plan = with_instances(plan, drafts_tokens=True)
    host.gpus(40000, 40000)
    for compute_mib, counted_mib in ((1500, 1500), (500, 900)):
        host.tool(plan, f"CUDA0 1 1 {compute_mib} \nHost 1 1 1 ")
        assert host.prove(plan)[0].rows[0].counted.compute_mib == counted_mib


def test_of_an_unknown_architecture_the_engine_knows_more_than_the_plan(host: ProofHost) -> None:
    weights = DeviceNeed(weights_mib=20000, kv_mib=0, compute_mib=0, runtime_mib=0)
    plan = with_need(host.plan({**CHAT, "gpus": [0]}, **ON_GPUS), weights, unknown="new keys")
    host.gpus(40000, 40000)
    host.tool(plan, "CUDA0 20000 3000 1500 \nHost 1 1 1 ")
    assert host.prove(plan)[0].rows[0].needs_mib == 24500
