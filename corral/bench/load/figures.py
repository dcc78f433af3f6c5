"""Figures of a load test from its requests, as `vllm bench serve` computes and names them.

Source: vllm/benchmarks/serve.py, calculate_metrics, as of vLLM 0.32.0.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from corral.engines.load import LoadCase
from corral.schema import Frozen

LATENCIES = ("ttft", "tpot", "itl", "e2el")
STATISTICS = ("mean", "median", "std", "p99")


@dataclass
class Exchange:
    """One request as the client saw it; times in seconds of one clock.

    + sent: when it was sent; + arrivals: when each part of the answer with a token arrived
    + error: why it has no whole answer, empty for success
    """

    sent: float = 0.0
    arrivals: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    error: str = ""

    @property
    def ttft(self) -> float:
        """Time to the first token."""
        return self.arrivals[0] - self.sent

    @property
    def e2el(self) -> float:
        """Time from the request to its last token."""
        return self.arrivals[-1] - self.sent

    @property
    def tpot(self) -> float | None:
        """Time per output token after the first; None for a single token."""
        if self.output_tokens < 2:
            return None
        return (self.e2el - self.ttft) / (self.output_tokens - 1)

    @property
    def itl(self) -> list[float]:
        """Times between parts. A server that drafts tokens sends several in a part."""
        return [b - a for a, b in zip(self.arrivals, self.arrivals[1:], strict=False)]


class LoadRun(Frozen):
    """Figures of one measurement; names are those of `vllm bench serve --save-result`.

    + duration: seconds from the first request to the end of the last
    + completed, failed: requests; + ended_early: completed ones with fewer tokens than asked for
    + failures: reason -> number of requests
    + cached_input_tokens: those that the server took from a cache, as far as it reports them
    + *_throughput: per second, of completed requests
    + ttft: time to first token; tpot: time per output token after the first; itl: time between
      parts of a stream; e2el: time to the last token. None where no request completed
    """

    case: LoadCase
    duration: float
    completed: int
    failed: int
    ended_early: int
    failures: dict[str, int] = {}
    total_input_tokens: int
    total_output_tokens: int
    cached_input_tokens: int = 0
    request_throughput: float
    output_throughput: float
    total_token_throughput: float
    mean_ttft_ms: float | None
    median_ttft_ms: float | None
    std_ttft_ms: float | None
    p99_ttft_ms: float | None
    mean_tpot_ms: float | None
    median_tpot_ms: float | None
    std_tpot_ms: float | None
    p99_tpot_ms: float | None
    mean_itl_ms: float | None
    median_itl_ms: float | None
    std_itl_ms: float | None
    p99_itl_ms: float | None
    mean_e2el_ms: float | None
    median_e2el_ms: float | None
    std_e2el_ms: float | None
    p99_e2el_ms: float | None

    def figure(self, name: str) -> float | None:
        """A figure by its name."""
        value: float | None = getattr(self, name)
        return value


def figures(case: LoadCase, exchanges: Sequence[Exchange], duration: float) -> LoadRun:
    """Figures of the requests of one measurement; failed ones are in no latency and no sum.

    + duration: seconds, positive
    """
    whole = [one for one in exchanges if not one.error]
    input_tokens = sum(one.prompt_tokens for one in whole)
    output_tokens = sum(one.output_tokens for one in whole)
    samples = {
        "ttft": [one.ttft for one in whole],
        "tpot": [tpot for one in whole if (tpot := one.tpot) is not None],
        "itl": [itl for one in whole for itl in one.itl],
        "e2el": [one.e2el for one in whole],
    }
    latencies = {k: v for name in LATENCIES for k, v in _milliseconds(name, samples[name]).items()}
    return LoadRun(
        case=case,
        duration=duration,
        completed=len(whole),
        failed=len(exchanges) - len(whole),
        ended_early=sum(one.output_tokens < case.output_tokens for one in whole),
        failures=dict(Counter(one.error for one in exchanges if one.error)),
        total_input_tokens=input_tokens,
        total_output_tokens=output_tokens,
        cached_input_tokens=sum(one.cached_tokens for one in whole),
        request_throughput=len(whole) / duration,
        output_throughput=output_tokens / duration,
        total_token_throughput=(input_tokens + output_tokens) / duration,
        **latencies,
    )


def _milliseconds(name: str, seconds: Sequence[float]) -> dict[str, float | None]:
    names = [f"{statistic}_{name}_ms" for statistic in STATISTICS]
    if not seconds:
        return dict.fromkeys(names)
    values = (
        statistics.fmean(seconds), statistics.median(seconds), statistics.pstdev(seconds),
        percentile(seconds, 99),
    )  # fmt: skip
    return {key: 1000 * value for key, value in zip(names, values, strict=True)}


def percentile(values: Sequence[float], percent: float) -> float:
    """A percentile, interpolated between the two nearest values as numpy does by default."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low, high = math.floor(place), math.ceil(place)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
