"""vLLM's own load generator, `vllm bench serve`, as of vLLM 0.32.

Source: vllm/benchmarks/serve.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from corral.engines.load import LoadCase, LoadCommand

MODULE = "vllm.entrypoints.cli.main"
_RESULT_FILE = "load.json"


def load_command(
    case: LoadCase, *, python: str, model: str, alias: str, url: str, seed: int
) -> LoadCommand:
    """Requests for completions over the OpenAI API, as published figures of vLLM have them.

    + model: folder with the tokenizer
    """
    return LoadCommand(
        python=python,
        module=MODULE,
        arguments=("bench", "serve", *_arguments(case, model, alias, url, seed)),
        key_variable="OPENAI_API_KEY",
        result_file=_RESULT_FILE,
    )


def _arguments(case: LoadCase, model: str, alias: str, url: str, seed: int) -> Iterator[str]:
    yield from ("--base-url", url, "--endpoint", "/v1/completions")
    yield from ("--model", alias, "--tokenizer", model)
    yield from ("--dataset-name", "random", "--seed", str(seed), "--ignore-eos")
    yield from ("--random-input-len", str(case.input_tokens))
    yield from ("--random-output-len", str(case.output_tokens))
    yield from ("--num-prompts", str(case.num_prompts), "--request-rate", str(case.request_rate))
    if case.max_concurrency:
        yield from ("--max-concurrency", str(case.max_concurrency))
    yield from ("--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "99")
    # In detail: errors, and the length of each answer.
    yield from ("--save-result", "--save-detailed", "--result-filename", _RESULT_FILE)
    yield "--disable-tqdm"
