"""vLLM's own load generator: its command line."""

from __future__ import annotations

import pytest

from corral.engines import engine_module
from corral.engines.load import LoadCase, LoadCommand

CASE = LoadCase(input_tokens=8000, output_tokens=1000, num_prompts=16)


def command(case: LoadCase) -> LoadCommand:
    found = engine_module("vllm").load_command(
        case, programs="/opt/r/bin", model="/models/m", alias="glm", url="http://x:1", seed=7
    )
    assert found
    return found


def options(case: LoadCase) -> dict[str, str]:
    """Option -> its value, empty for a switch."""
    words = [*command(case).arguments[2:], "--"]
    pairs = zip(words, words[1:], strict=False)
    return {a: "" if b.startswith("--") else b for a, b in pairs if a.startswith("--")}


def test_vllm_measures_by_its_own_program_with_exact_lengths() -> None:
    found = command(CASE)
    assert (found.python, found.arguments[:2]) == ("/opt/r/bin/python", ("bench", "serve"))
    assert found.shown[:3] == ("/opt/r/bin/python", "-m", "vllm.entrypoints.cli.main")
    given = options(CASE)
    assert given["--base-url"] == "http://x:1"
    assert (given["--model"], given["--tokenizer"]) == ("glm", "/models/m")
    assert (given["--dataset-name"], given["--seed"]) == ("random", "7")
    assert (given["--random-input-len"], given["--random-output-len"]) == ("8000", "1000")
    assert (given["--num-prompts"], given["--request-rate"]) == ("16", "inf")
    assert {"--ignore-eos", "--save-detailed"} <= given.keys()
    assert "--max-concurrency" not in given


@pytest.mark.parametrize("secret", ["key", "header", "authorization"])
def test_no_argument_is_a_key(secret: str) -> None:
    assert command(CASE).key_variable == "OPENAI_API_KEY"
    assert not [word for word in command(CASE).arguments if secret in word.lower()]


def test_rates_and_concurrency_are_passed_on() -> None:
    given = options(CASE.model_copy(update={"request_rate": 0.5, "max_concurrency": 4}))
    assert (given["--request-rate"], given["--max-concurrency"]) == ("0.5", "4")


def test_llama_servers_have_no_load_generator() -> None:
    for kind in ("llama.cpp", "ik_llama.cpp"):
        found = engine_module(kind).load_command(
            CASE, programs="/b", model="/m", alias="a", url="u", seed=1
        )
        assert found is None
