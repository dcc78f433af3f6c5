"""The result of a load test: what was measured, how, and all its figures."""

from __future__ import annotations

from typing import Any, Literal

from corral.bench.load.figures import LATENCIES, STATISTICS, LoadRun
from corral.bench.result import Subject
from corral.engines.load import LoadCase
from corral.errors import CorralError

Path = Literal["host", "ssh", "controller", "gateway"]

_PATHS: dict[Path, str] = {
    "host": "on its host",
    "ssh": "through ssh from the controller",
    "controller": "on the controller, which is its host",
    "gateway": "through a gateway from the controller",
}


class LoadResult(Subject):
    """One load test of one instance.

    + path: from where the requests came: the host's own loopback, the controller through ssh, the
      controller where it is the host itself, or the controller through a gateway
    + through: the gateway's host, and how it was reached; empty for a direct test
    + round_trip_ms: of a short request on this path, which is part of each latency; None for a
      load generator on the host
    + program: the load generator; + command: its command line for the first measurement, or none
    + in_flight: requests of others when it began; None if unknown
    + client_load: largest share of a processor that the client used; near 1 it was the bottleneck
    """

    test: Literal["load"] = "load"
    path: Path
    through: str = ""
    round_trip_ms: float | None = None
    program: str
    command: tuple[str, ...] = ()
    in_flight: int | None = None
    client_load: float | None = None
    runs: tuple[LoadRun, ...]

    @property
    def placed(self) -> str:
        """From where it was measured, for people."""
        return f"through {self.through}" if self.through else _PATHS[self.path]

    @property
    def failed(self) -> int:
        """Requests that failed or ended early, of all measurements."""
        return sum(run.failed + run.ended_early for run in self.runs)


def program_run(case: LoadCase, found: dict[str, Any], *, where: str) -> LoadRun:
    """The figures that an engine's own load generator wrote, under vLLM's names.

    ``errors`` has a text for each request, empty for success, and ``output_lens`` its tokens.
    vLLM counts a stream that was cut as completed; its tokens are then too few. Raises CorralError.
    """
    try:
        errors = [str(error) for error in found["errors"]]
        tokens = [int(number) for number in found["output_lens"]]
        answered = [n for error, n in zip(errors, tokens, strict=True) if not error]
        names = [f"{statistic}_{name}_ms" for name in LATENCIES for statistic in STATISTICS]
        latencies: dict[str, Any] = {n: float(found[n]) if answered else None for n in names}
        return LoadRun(
            case=case,
            duration=float(found["duration"]),
            completed=int(found["completed"]),
            failed=int(found["failed"]),
            ended_early=sum(number < case.output_tokens for number in answered),
            failures=_failures(errors),
            total_input_tokens=int(found["total_input_tokens"]),
            total_output_tokens=int(found["total_output_tokens"]),
            request_throughput=float(found["request_throughput"]),
            output_throughput=float(found["output_throughput"]),
            total_token_throughput=float(found["total_token_throughput"]),
            **latencies,
        )
    except (KeyError, TypeError, ValueError) as error:
        what = f"the load generator's figures cannot be read: {error!r}"
        raise CorralError(where, what, "see that the release is one that Corral knows") from error


def _failures(errors: list[str]) -> dict[str, int]:
    reasons = [error for error in errors if error]
    return {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}
