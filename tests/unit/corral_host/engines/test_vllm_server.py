"""What vLLM's metrics, answers and log say; the texts in tests/data/vllm are those of 0.32.0."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.samples import ROOT
from tests.unit.helper_modules import helper_module

HostError = helper_module("system.commands").HostError
VLLM = helper_module("engines.vllm").Vllm()
DATA = ROOT / "tests" / "data" / "vllm"
METRICS = (DATA / "metrics.txt").read_text()
WORDS = ["river", "stone", "paper", "north"]


def log(name: str) -> str:
    return (DATA / f"{name}-log.txt").read_text()


def running(text: str, value: float, engine: int = 0) -> str:
    """The metrics with so many requests that run in an engine."""
    sample = f'vllm:num_requests_running{{engine="{engine}",model_name="tiny-glm"}} {value}'
    return re.sub(rf'^vllm:num_requests_running{{engine="{engine}".*$', sample, text, flags=re.M)


def test_requests_of_all_engines_are_in_flight() -> None:
    assert VLLM.in_flight({}, lambda _: METRICS) == 0
    assert VLLM.in_flight({}, lambda _: running(METRICS, 2)) == 2
    second = METRICS.replace('engine="0"', 'engine="1"')
    assert VLLM.in_flight({}, lambda _: running(METRICS, 2) + running(second, 3, 1)) == 5
    waiting = re.sub(r"(?m)^(vllm:num_requests_waiting{.*}) \S+$", r"\1 4.0", METRICS)
    assert VLLM.in_flight({}, lambda _: waiting) == 4, "and waiting_by_reason counts no second time"


@pytest.mark.parametrize("text", ["", METRICS.replace("num_requests_waiting", "num_queued")])
def test_a_server_without_the_metric_is_no_idle_one(text: str) -> None:
    with pytest.raises(HostError, match="/metrics has no vllm:num_requests_"):
        VLLM.in_flight({}, lambda _: text)


def test_drafts_are_those_of_the_metrics() -> None:
    assert VLLM.drafts(lambda _: METRICS) == (15.0, 0.0)
    without = "\n".join(line for line in METRICS.splitlines() if "spec_decode" not in line)
    with pytest.raises(HostError, match="/metrics has no vllm:spec_decode_num_draft_tokens_total"):
        VLLM.drafts(lambda _: without)


def test_the_length_is_reported_and_the_number_of_slots_is_not() -> None:
    models = json.dumps({"data": [{"id": "m", "max_model_len": 2048}]})
    assert VLLM.slots({"/v1/models": models}.__getitem__) == (None, 2048)


@pytest.mark.parametrize(
    ("name", "what", "step"),
    [
        ("port-taken", "its port is in use by another program", "`ss -tlnp`"),
        (
            "length-beyond-model", "a length of 9999 tokens is more than the model's own of 4096",
            "lower context_tokens_per_slot in the profile to 4096 or less",
        ),
        (
            "length-beyond-cache",
            "one request of 4000000 tokens needs 1.91 GiB of KV cache and 1.0 GiB are there; vLLM "
            "estimates that 2097024 tokens fit",
            "lower context_tokens_per_slot in the profile to 2097024 or less",
        ),
        ("unknown-flag", "does not take its arguments: --no-such-flag", "extra_flags"),
        ("unknown-parser", "KeyError: 'invalid tool call parser: nosuch", "log on the host"),
        ("no-weights", "RuntimeError: Cannot find any model weights with `/models/cfgonly`", "log"),
    ],
)  # fmt: skip
def test_its_own_errors_say_what_to_change(name: str, what: str, step: str) -> None:
    found, next_step = VLLM.why_it_ended(log(name))
    assert what in found
    assert step in next_step
    assert len(found) <= 400


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (
            "ValueError: No available memory for the cache blocks. Try increasing",
            "the weights leave no memory for the KV cache",
        ),
        (
            "ValueError: Free memory on device cuda:1 (20.11/139.8 GiB) on startup is less than "
            "desired GPU memory utilization (0.92, 128.62 GiB). Decrease GPU memory",
            "20.11 of 139.8 GiB are free on device cuda:1, and a utilization of 0.92 wants 128.62",
        ),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has",
            "out of GPU memory: CUDA out of memory. Tried to allocate 2.00 GiB",
        ),
        (
            "api_server.py: error: argument --max-num-seqs: invalid int value: 'x'",
            "does not take its arguments: argument --max-num-seqs: invalid int value",
        ),
        (
            "Engine core proc EngineCore_DP0 died unexpectedly, shutting down client.",
            "a process of its engine ended",
        ),
    ],
)
def test_errors_that_only_a_gpu_has(line: str, what: str) -> None:
    before = "(EngineCore pid=7) ERROR 11-29 21:03:08 [core.py:1510] "
    after = "\nRuntimeError: Engine core initialization failed. See root cause above."
    for text in (line, before + line, before + line + after):
        assert what in VLLM.why_it_ended(text)[0]


def test_an_error_that_did_not_end_it_is_not_the_reason() -> None:
    optional = "ImportError: cannot import name 'x' from 'optional'\n"
    assert "Cannot find any model weights" in VLLM.why_it_ended(optional + log("no-weights"))[0]


def test_a_log_without_an_error_gives_no_reason() -> None:
    assert VLLM.why_it_ended(log("serves")) is None
    assert VLLM.why_it_ended("") is None
    assert helper_module("engines.base").Engine().why_it_ended(log("port-taken")) is None


# Lines in the form of 0.24.0 for CUDA, made for two ranks that differ.
ON_GPUS = """
(Worker_TP0 pid=7) INFO [x.py:1] Model loading took 51.61 GiB memory and 7.5 seconds
(Worker_TP1 pid=8) INFO [x.py:1] Model loading took 51.62 GiB memory and 7.6 seconds
(Worker_TP0 pid=7) INFO [x.py:1] Available KV cache memory: 15.53 GiB
(Worker_TP1 pid=8) INFO [x.py:1] Available KV cache memory: 15.51 GiB
(EngineCore pid=6) INFO [x.py:1] GPU KV cache size: 86,528 tokens
(EngineCore pid=6) INFO [x.py:1] Maximum concurrency for 32,768 tokens per request: 2.64x
(Worker_TP0 pid=7) INFO [x.py:1] Graph capturing finished in 26 secs, took 1.80 GiB
(Worker_TP1 pid=8) INFO [x.py:1] Graph capturing finished in 26 secs, took 1.81 GiB
"""


def test_the_fullest_rank_is_the_memory_of_a_server() -> None:
    assert VLLM.memory_report(ON_GPUS) == {
        "weights_gib": 51.62, "cache_gib": 15.51, "graphs_gib": 1.81, "cache_tokens": 86528,
        "request_tokens": 32768, "requests": 2.64,
    }  # fmt: skip
    nothing = dict.fromkeys(VLLM.memory_report(ON_GPUS))
    assert VLLM.memory_report("no figures") == nothing


def test_a_trial_takes_what_the_server_will() -> None:
    settings = {
        "gpu_memory_utilization": 0.9, "tensor_parallel": 2, "data_parallel": 1,
        "kv_cache_mib": 512,
    }  # fmt: skip
    on_gpus = {"settings": settings, "gpus": [0, 1]}
    assert VLLM.trial_gpu_mib(on_gpus, 143771) == 129394
    assert VLLM.trial_host_mib(on_gpus, 100_000) == 2048 + 2 * 3072
    assert VLLM.trial_host_mib({**on_gpus, "gpus": []}, 1000) == 2048 + 2 * 3072 + 1000 + 2 * 512


class Stream:
    """A server that answers /tokenize and /metrics, and sends tokens at given times.

    + mine: prefill and decode seconds of the request, in the metrics from the second look after it
    + others: requests that end meanwhile
    """

    def __init__(
        self, *at: float, prompt: int = 4, mine: Any = (0.25, 0.5), others: int = 0, **usage: Any
    ) -> None:
        self.at, self.prompt, self.usage = at, prompt, usage
        self.mine, self.others = mine, others
        self.bodies: list[dict[str, Any]] = []
        self.pending, self.sums, self.count = 0, [1.0, 2.0], 7

    def ask(self, route: str, body: Any) -> str:
        if route == "GET /metrics":
            return self.metrics()
        assert route == "POST /tokenize"
        return json.dumps({"tokens": list(range(11 * len(body["prompt"].split())))})

    def metrics(self) -> str:
        if self.pending == 1:
            self.sums = [one + more for one, more in zip(self.sums, self.mine, strict=True)]
            self.count += 1 + self.others
        self.pending -= 1
        label = '{engine="0",model_name="m n"}'
        return "\n".join(
            f"vllm:request_{name}_time_seconds_sum{label} {seconds}\n"
            f"vllm:request_{name}_time_seconds_count{label} {self.count}"
            for name, seconds in zip(("prefill", "decode"), self.sums, strict=True)
        )

    def timed(self, route: str, body: Any, seconds: float) -> list[tuple[float, Any]]:
        assert (route, seconds) == ("POST /v1/completions", 99)
        self.bodies.append({**body})
        self.pending = 2
        return [*self.events(), (9.0, {"choices": [], "usage": None})]

    def events(self) -> Iterator[tuple[float, Any]]:
        for number, at in enumerate(self.at, start=1):
            usage = {"prompt_tokens": self.prompt, "completion_tokens": number, **self.usage}
            yield at, {"choices": [{"text": ""}], "usage": usage}

    def speeds(self, tokens: int = 4, generated: int = 3) -> Any:
        return VLLM.speeds(self.ask, self.timed, WORDS, tokens, generated, lambda *_: 99)


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper_module("engines.vllm_server.speeds"), "LOOK_SECONDS", 0)


def test_speeds_follow_from_the_servers_own_times() -> None:
    """Whenever the tokens arrive: here in one piece, as at a client of a busy machine."""
    stream = Stream(0.9, 0.9, 0.9)
    assert stream.speeds() == {"prompt": 4 / 0.25, "generation": 2 / 0.5}
    (body,) = stream.bodies
    assert body["prompt"] == [0, 1, 2, 3]
    assert body["ignore_eos"]
    assert body["max_tokens"] == 3


@pytest.mark.parametrize("stream", [Stream(0.5, 0.6, 0.75, others=1)])
def test_while_others_use_the_server_the_times_of_arrival_serve(stream: Stream) -> None:
    assert stream.speeds() == {"prompt": 8.0, "generation": 2 / 0.25}
    assert [body["prompt"] for body in stream.bodies] == [
        [0, 1, 2, 3], [1, 2, 3, 0], [3, 0, 1, 2],
    ], "no prompt is in the cache"  # fmt: skip


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (Stream(), "sent no token"),
        (Stream(0.5, 0.6), "counts 4 and 2 tokens, sent and asked for were 4 and 3"),
        (Stream(0.5, 0.6, 0.7, prompt=5), "counts 5 and 3 tokens"),
        (Stream(0.5, 0.5, 0.5, others=1), "in one piece"),
        (
            Stream(0.5, 0.6, 0.7, prompt_tokens_details={"cached_tokens": 2}),
            "2 of 4 tokens were cached",
        ),
    ],
)
def test_what_cannot_be_measured_is_an_error(stream: Stream, message: str) -> None:
    with pytest.raises(HostError, match=message):
        stream.speeds()


def test_a_prompt_of_fewer_tokens_than_planned_is_an_error() -> None:
    with pytest.raises(HostError, match="4 words are 44 tokens, and 45 are needed"):
        Stream(0.5, 0.6, 0.7).speeds(tokens=45)


def test_the_tokens_that_it_computed_are_its_work() -> None:
    engine = helper_module("engines").of({"kind": "vllm"})
    text = (ROOT / "tests" / "data" / "vllm" / "metrics.txt").read_text()
    found = engine.work(text)
    assert found > 15
    assert engine.work(text.replace('"tiny-glm"} 15.0', '"tiny-glm"} 16.0')) == found + 1
    assert engine.work("") is None


@pytest.mark.parametrize("kind", ["llama.cpp", "ik_llama.cpp"])
def test_the_work_of_a_llama_server_grows_with_prompts_and_answers(kind: str) -> None:
    engine = helper_module("engines").of({"kind": kind})
    text = "# HELP x\nllamacpp:prompt_tokens_total 5\nllamacpp:tokens_predicted_total 2\n"
    assert engine.work(text) == 7
    assert engine.work(f"{text}llamacpp:n_decode_total 3\nllamacpp:requests_processing 9\n") == 10
    assert engine.work("llamacpp:requests_processing 9\n") is None
