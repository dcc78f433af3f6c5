"""The proof of fit on a host: arguments for the engine, and results of its answers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.proof_host import CHAT, NEED, ON_GPUS, ProofHost, with_need
from tests.unit.running_hub import RunningHub

pytestmark = pytest.mark.slow


@pytest.fixture
def host(tmp_path: Path, running: RunningHub) -> ProofHost:
    return ProofHost(tmp_path, running.url)


def test_the_engine_sees_the_gpus_of_its_set_and_nothing_of_this_environment(
    host: ProofHost,
) -> None:
    plan = with_need(host.plan({**CHAT, "gpus": [1, 0]}, **ON_GPUS), NEED, NEED)
    host.gpus(40000, 40000)
    host.tool(plan, "CUDA0 1 1 1 \nCUDA1 1 1 1 \nHost 1 1 1 ")
    assert host.prove(plan)[0].ok
    seen = host.called(plan)["environment"]
    assert (seen["CUDA_VISIBLE_DEVICES"], seen["CUDA_DEVICE_ORDER"]) == ("1,0", "PCI_BUS_ID")
    assert "LLAMA_ARG_CTX_SIZE" not in seen
    assert seen["HOME"].startswith(str(host.root))


def test_without_gpus_the_engine_sees_none(host: ProofHost) -> None:
    plan = host.plan(CHAT)
    host.tool(plan)
    host.prove(plan)
    assert host.called(plan)["environment"]["CUDA_VISIBLE_DEVICES"] == ""


def test_an_instance_still_to_come_on_the_same_gpu_is_counted(host: ProofHost) -> None:
    other = {**CHAT, "name": "other", "port": 8002, "gpus": ["GPU-0"]}
    plan = with_need(host.plan({**CHAT, "gpus": [0]}, other, **ON_GPUS), NEED)
    host.gpus(40000, 40000)
    host.tool(plan, "CUDA0 20001 1999 1500 \nHost 1 1 1 ")
    for waiting in (("chat",), ("chat", "other")):
        verdict, *others = host.prove(plan, waiting)
        assert [one.instance for one in (verdict, *others)] == list(waiting)
        assert not verdict.ok
        assert "16.0 GiB is there" in verdict.message
        assert "still to be taken by other 23.1 GiB" in verdict.message


def test_a_gpu_too_full_for_the_engine_to_look_is_counted_from_the_header(host: ProofHost) -> None:
    plan = with_need(host.plan({**CHAT, "gpus": [0]}, **ON_GPUS), NEED)
    host.gpus(700, 40000)
    host.tool(plan, logs=["CUDA error: out of memory"], code=1)
    (verdict,) = host.prove(plan)
    assert "too little is free for llama-fit-params itself" in verdict.lines()[-1]
    assert "GPU 0: 23.1 GiB needed, 0.7 GiB is there" in verdict.message


def test_an_engine_that_sees_no_gpu_is_refused(host: ProofHost) -> None:
    plan = with_need(host.plan({**CHAT, "gpus": [0]}, **ON_GPUS), NEED)
    host.gpus(40000, 40000)
    host.tool(plan, "Host 1 1 1 ")
    (verdict,) = host.prove(plan)
    assert "llama-fit-params sees no CUDA0, so the server would not use GPU 0" in verdict.message


def test_a_gpu_that_nvidia_smi_does_not_list_is_refused(host: ProofHost) -> None:
    plan = with_need(host.plan({**CHAT, "gpus": [1]}, **ON_GPUS), NEED)
    host.gpus(40000)
    host.tool(plan, "CUDA0 1 1 1 \nHost 1 1 1 ")
    assert "nvidia-smi does not report the free memory of GPU 1" in host.prove(plan)[0].message


def test_an_engine_that_refuses_the_model_is_quoted(host: ProofHost) -> None:
    plan = host.plan(CHAT)
    log = "0.0 I loading\n0.1 E llama_init_from_model: model does not support different K and V"
    log += "\nterminate called\n  what():  failed to create llama_context"
    cut_short = "terminate called"
    host.tool(plan, logs=[cut_short, log], code=134)
    (verdict,) = host.prove(plan)
    assert verdict.message == (
        "chat: llama-fit-params failed (134): 0.1 E llama_init_from_model: model does not support "
        "different K and V | what():  failed to create llama_context\n"
        "  Next: fix that in the profile or on the host, then run the same deploy again"
    )


def test_an_answer_without_rows_is_a_failure(host: ProofHost) -> None:
    plan = host.plan(CHAT)
    host.tool(plan, "-c 4096 -ngl 99")
    assert "llama-fit-params failed (0): no output" in host.prove(plan)[0].message


def test_a_release_without_the_program_is_told(host: ProofHost) -> None:
    message = host.prove(host.plan(CHAT))[0].message
    assert "llama-fit-params failed (127)" in message
    assert "No such file or directory" in message


def test_an_engine_without_the_program_goes_by_the_plan(host: ProofHost) -> None:
    plan = with_need(host.plan({**CHAT, "gpus": [0]}, **ON_GPUS), NEED)
    (instance,) = plan.instances
    ik = (plan.releases[0].model_copy(update={"engine": "ik_llama.cpp"}),)
    no_tool = (instance.model_copy(update={"fit_argv": None}),)
    plan = plan.model_copy(update={"releases": ik, "instances": no_tool})
    for free_mib, fits in ((23636, True), (23635, False)):
        host.gpus(free_mib, 0)
        (verdict,) = host.prove(plan)
        assert verdict.ok is fits
        assert "chat: ik_llama.cpp has no llama-fit-params: counted from the header" in (
            verdict.lines()
        )


def test_a_share_that_is_not_free_names_its_key(host: ProofHost) -> None:
    """A smaller context would not help: the engine takes its share in any case."""
    share = NEED.model_copy(update={"reserved_mib": NEED.total_mib})
    plan = with_need(host.plan({**CHAT, "gpus": [0]}, **ON_GPUS), share)
    host.gpus(5000, 40000)
    host.tool(plan, "CUDA0 20000 2000 900 \nHost 1 1 1 ")
    (verdict,) = host.prove(plan)
    assert "lower gpu_memory_utilization, or free the GPU (`corral fit" in verdict.message
