"""Arithmetic of load tests, against values computed by hand; the load that is asked for."""

from __future__ import annotations

import random

import pytest

from corral.bench.load.figures import Exchange, LoadRun, figures, percentile
from corral.bench.load.generator import delays, prompts
from corral.bench.load.result import program_run
from corral.bench.load.workload import PROMPTS, cases, lengths, refuse_longer
from corral.engines.load import LoadCase
from corral.errors import CorralError

CHANCE = random.SystemRandom()
CASE = LoadCase(input_tokens=10, output_tokens=3, num_prompts=4)


def exchange(sent: float, *arrivals: float, tokens: int = 3, error: str = "") -> Exchange:
    return Exchange(sent, list(arrivals), prompt_tokens=10, output_tokens=tokens, error=error)


def measured() -> LoadRun:
    """Two whole ones, one that ended early, one that was cut."""
    return figures(
        CASE,
        [
            exchange(0.0, 1.0, 1.5, 2.5),
            exchange(0.0, 2.0, 2.25, 3.0),
            exchange(1.0, 1.5, tokens=1),
            exchange(0.0, 9.0, tokens=2, error="the stream was cut"),
        ],
        4.0,
    )


def test_counts_and_throughputs() -> None:
    run = measured()
    assert (run.completed, run.failed, run.ended_early) == (3, 1, 1)
    assert run.failures == {"the stream was cut": 1}
    assert (run.total_input_tokens, run.total_output_tokens) == (30, 7)
    assert (run.request_throughput, run.output_throughput) == (0.75, 1.75)
    assert run.total_token_throughput == 37 / 4


def test_latencies() -> None:
    run = measured()
    # TTFT: 1, 2 and 0.5 s.
    assert run.mean_ttft_ms == pytest.approx(3500 / 3)
    assert run.median_ttft_ms == 1000
    # Deviation from 7/6: sqrt((1/36 + 25/36 + 16/36) / 3).
    assert run.std_ttft_ms == pytest.approx(1000 * (42 / 36 / 3) ** 0.5)
    # Of three values p99 lies at place 1.98: 1 + 0.98 * (2 - 1).
    assert run.p99_ttft_ms == pytest.approx(1980)
    # TPOT: (2.5 - 1) / 2 and (3 - 2) / 2; a single token has none.
    assert run.mean_tpot_ms == pytest.approx(625)
    assert run.p99_tpot_ms == pytest.approx(500 + 0.99 * 250)
    # ITL: 0.5, 1, 0.25, 0.75.
    assert (run.mean_itl_ms, run.median_itl_ms) == (625, 625)
    assert run.p99_itl_ms == pytest.approx(750 + 0.97 * 250)
    # E2EL: 2.5, 3 and 0.5 s.
    assert (run.mean_e2el_ms, run.median_e2el_ms) == (2000, 2500)


def test_without_any_answer_there_is_no_latency() -> None:
    run = figures(CASE, [exchange(0.0, error="HTTP 503: loading")] * 4, 2.0)
    assert (run.completed, run.failed, run.failures) == (0, 4, {"HTTP 503: loading": 4})
    assert (run.mean_ttft_ms, run.p99_e2el_ms, run.output_throughput) == (None, None, 0)


@pytest.mark.parametrize(
    ("values", "percent", "found"),
    [
        ([5.0], 99, 5.0),
        ([1.0, 2.0], 50, 1.5),
        ([4.0, 1.0, 3.0, 2.0], 25, 1.75),
        ([1.0, 9.0], 99, 8.92),
    ],
)
def test_percentiles_lie_between_values(values: list[float], percent: float, found: float) -> None:
    assert percentile(values, percent) == pytest.approx(found)


def written(**changes: object) -> dict[str, object]:
    """Figures as `vllm bench serve --save-result --save-detailed` writes them."""
    names = [
        f"{s}_{n}_ms"
        for n in ("ttft", "tpot", "itl", "e2el")
        for s in ("mean", "median", "std", "p99")
    ]
    return {
        **{name: float(place) for place, name in enumerate(names, 1)},
        "duration": 2.0, "completed": 3, "failed": 1, "total_input_tokens": 30,
        "total_output_tokens": 8, "request_throughput": 1.5, "output_throughput": 4.0,
        "total_token_throughput": 19.0, "errors": ["", "", "", "Service Unavailable"],
        "output_lens": [3, 3, 2, 0], "num_prompts": 4, "request_rate": "inf", **changes,
    }  # fmt: skip


def test_figures_of_an_engines_program_are_read_and_cut_streams_found() -> None:
    run = program_run(CASE, written(), where="node-1/chat")
    assert (run.completed, run.failed, run.ended_early) == (3, 1, 1)
    assert run.failures == {"Service Unavailable": 1}
    assert (run.mean_ttft_ms, run.p99_e2el_ms) == (1.0, 16.0)


@pytest.mark.parametrize(
    "changes", [{"errors": [""]}, {"mean_ttft_ms": "fast"}, {"duration": None}, {"output_lens": 3}]
)
def test_figures_that_cannot_be_read_are_one_message(changes: dict[str, object]) -> None:
    with pytest.raises(CorralError, match="node-1/chat: the load generator's figures cannot be"):
        program_run(CASE, written(**changes), where="node-1/chat")


def test_requests_arrive_at_the_rate_that_was_asked_for() -> None:
    case = CASE.model_copy(update={"num_prompts": 50, "request_rate": 5.0})
    found = delays(case, CHANCE)
    assert found == sorted(found)
    assert found[-1] == pytest.approx(10)
    # Not evenly: a Poisson process.
    gaps = [b - a for a, b in zip(found, found[1:], strict=False)]
    assert max(gaps) > 2 * min(gaps)
    assert delays(CASE, CHANCE) == [0.0] * 4


def test_prompts_have_the_exact_length_and_no_beginning_in_common() -> None:
    case = CASE.model_copy(update={"num_prompts": 100, "input_tokens": 64})
    found = prompts(case, range(500, 900), CHANCE)
    assert {len(prompt) for prompt in found} == {64}
    assert len({tuple(prompt[:4]) for prompt in found}) == 100
    assert all(token in range(500, 900) for prompt in found for token in prompt)


def test_all_combinations_are_measured() -> None:
    found = cases([lengths("8000/1000"), lengths("10/20")], PROMPTS, ("inf", 2.0), (None, 4))
    assert len(found) == 2 * 7 * 2 * 2
    assert len(set(found)) == len(found)
    assert (found[0].input_tokens, found[0].num_prompts, found[0].concurrency) == (8000, 1, 1)


@pytest.mark.parametrize(
    "text", ["", "8000", "8000/", "/1", "a/b", "0/5", "5/-1", "1/2/3", "9999999/1", "١/٢"]
)
def test_lengths_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(CorralError, match="is not INPUT/OUTPUT in tokens\n  Next: name tokens"):
        lengths(text)


@pytest.mark.parametrize(
    ("prompts", "rates", "concurrencies", "what"),
    [
        ([10_001], ["inf"], [1], "the limit is 10000"),
        ([0], ["inf"], [1], "the limit is 10000"),
        ([2000], ["inf"], [None], "2000 requests would be in flight, the limit is 1024"),
        ([1], ["inf"], [1025], "the limit is 1024"),
        ([1], [1e9], [1], "the limit is 10000"),
        ([1], [-1.0], [1], "the limit is 10000"),
        ([1], [float("nan")], [1], "the limit is 10000"),
        (range(1, 66), ["inf"], [1], "are 65 measurements, the limit is 64"),
    ],
)  # fmt: skip
def test_more_than_is_sensible_is_refused(
    prompts: list[int], rates: list[float], concurrencies: list[int | None], what: str
) -> None:
    with pytest.raises(CorralError, match=what):
        cases([lengths("10/10")], prompts, rates, concurrencies)


def test_what_does_not_fit_in_a_slot_is_refused() -> None:
    refuse_longer(cases([lengths("1000/1048")], [1]), 2048, where="node-1/chat")
    with pytest.raises(CorralError, match="1000/1049 needs 2049 tokens, and a slot has 2048"):
        refuse_longer(cases([lengths("1000/1049")], [1]), 2048, where="node-1/chat")
