"""Planning: what is refused, with where, what, and what to type next."""

from __future__ import annotations

from typing import Any

import pytest

from corral.catalog.entries import Quant
from corral.errors import CorralError
from tests.samples import CHAT, SOCKET, host, planner
from tests.unit.planning.test_planning import no_network

__all__ = ["no_network"]


def refusal(*instances: dict[str, Any], chat: dict[str, Any] | None = None, **data: Any) -> str:
    with pytest.raises(CorralError) as caught:
        planner(**(chat or {})).plan_host(host(*instances, **data))
    assert caught.value.where.startswith("lab-1/")
    assert caught.value.next_step
    return caught.value.what


def test_what_the_engine_cannot_do_names_engine_profile_and_keys_at_once() -> None:
    with pytest.raises(CorralError) as caught:
        planner(mla_mode=3, split_mode="graph").plan_host(host(CHAT))
    assert caught.value.where == "lab-1/chat: profile chat, engine llama.cpp"
    assert "mla_mode is supported by ik_llama.cpp only" in caught.value.what
    assert 'split_mode = "graph" is supported by ik_llama.cpp only' in caught.value.what
    assert 'choose engine = "ik_llama.cpp"' in caught.value.next_step


def test_a_quant_that_another_engine_alone_reads_is_refused() -> None:
    base = planner()
    quant = Quant(files="Q8_0/*.gguf", engine="ik_llama.cpp")
    model = base.catalog.models["small"].model_copy(update={"quants": {"Q8_0": quant}})
    known = base.catalog.model_copy(update={"models": {"small": model}})
    with pytest.raises(CorralError) as caught:
        base.model_copy(update={"catalog": known}).plan_host(host(CHAT))
    assert caught.value.where == "lab-1/chat: profile chat, engine llama.cpp"
    assert "only ik_llama.cpp can read" in caught.value.what


def test_an_unknown_chat_template_is_named() -> None:
    what = refusal(CHAT, chat={"chat_template_file": "own.jinja"})
    assert 'unknown chat template "own.jinja"' in what


def test_a_context_above_the_trained_length_is_refused() -> None:
    what = refusal(CHAT, chat={"context_tokens_per_slot": 8193})
    assert "8193" in what
    assert "8192" in what


def test_rope_scaling_reaches_as_far_as_its_factor() -> None:
    scaling = {"type": "yarn", "factor": 2}
    chat: dict[str, Any] = {"context_tokens_per_slot": 16384, "rope_scaling": scaling}
    argv = planner(**chat).plan_host(host(CHAT)).instances[0].argv
    assert argv[argv.index("--rope-scaling") :][:4] == (
        *("--rope-scaling", "yarn"),
        *("--rope-scale", "2"),
    )
    what = refusal(CHAT, chat={**chat, "context_tokens_per_slot": 16385})
    assert "16385" in what
    assert "reaches 16384" in what
    shorter = {**scaling, "original_context_tokens": 4096}
    assert "reaches 8192" in refusal(CHAT, chat={**chat, "rope_scaling": shorter})


def test_a_missing_port_is_refused() -> None:
    assert "port is missing" in refusal({"name": "chat", "profile": "chat"})


def test_a_port_for_a_socket_profile_is_refused() -> None:
    assert "but port is 8003" in refusal({**SOCKET, "port": 8003})


def test_cuda_without_gpus_is_refused() -> None:
    assert "no gpus" in refusal(CHAT, backend="cuda")
