"""Draw load tests: throughput and latencies over concurrency. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corral.bench.load.compare import by_case, samples
from corral.bench.load.figures import LATENCIES
from corral.bench.load.result import LoadResult
from corral.bench.plot import refuse_plot, save
from corral.engines.load import LoadCase

_NAMES = {
    "ttft": "time to first token", "tpot": "time per output token",
    "itl": "time between parts of a stream", "e2el": "time to last token",
}  # fmt: skip
_STYLES = {"median": "-", "p99": "--"}


def plot_loads(results: Sequence[LoadResult], path: Path) -> None:
    """Throughput, then median and p99 of each latency; a line for each kind of load of a result.

    Raises CorralError.
    """
    refuse_plot(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(16, 8), layout="constrained")
    axes = [one for row in figure.subplots(2, 3) for one in row]
    _draw(axes[0], results, {"output_throughput": "-"}, "output", "tokens/s")
    _draw(axes[1], results, {"request_throughput": "-"}, "requests", "requests/s")
    for place, name in zip(axes[2:], LATENCIES, strict=True):
        figures = {f"{statistic}_{name}_ms": style for statistic, style in _STYLES.items()}
        _draw(place, results, figures, f"{_NAMES[name]}: median, p99 dashed", "ms")
    save(figure, path)


def _draw(
    axes: Any, results: Sequence[LoadResult], figures: dict[str, str], title: str, unit: str
) -> None:
    number = 0
    for result in results:
        for label, line in _lines(result).items():
            for figure, style in figures.items():
                points = [(c, value) for c, values in line for value in _mean(values, figure)]
                name = label if style == "-" else None
                xs, ys = [c for c, _ in points], [value for _, value in points]
                axes.plot(xs, ys, style, color=f"C{number % 10}", marker="o", label=name)
            number += 1
    axes.set(title=title, xlabel="requests at a time", ylabel=unit)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small")


def _mean(runs: Any, figure: str) -> list[float]:
    found = samples(runs, figure)
    return [sum(found) / len(found)] if found else []


def _lines(result: LoadResult) -> dict[str, list[tuple[int, Any]]]:
    """Label -> (concurrency, repetitions), in the order of concurrency."""
    found: dict[str, list[tuple[int, Any]]] = {}
    for case, runs in by_case(result).items():
        found.setdefault(_label(result, case), []).append((case.concurrency, runs))
    return {label: sorted(line, key=lambda point: point[0]) for label, line in found.items()}


def _label(result: LoadResult, case: LoadCase) -> str:
    rate = "" if case.request_rate == "inf" else f", {case.request_rate:g}/s"
    what = f"{case.input_tokens}/{case.output_tokens}{rate}"
    return f"{result.name} {result.release[:12]}, {what}, {result.began_at}"
