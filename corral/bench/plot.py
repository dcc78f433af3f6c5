"""Draw results: tokens/s over context length, with their spread. Needs matplotlib."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corral.bench.compare import side
from corral.bench.result import Result
from corral.engines.benchmark import Test
from corral.errors import CorralError

_TESTS: tuple[Test, ...] = ("prompt", "generation")


def refuse_plot(path: Path) -> None:
    """Raise CorralError for what cannot be drawn, before anything is measured."""
    if path.suffix not in (".png", ".svg"):
        raise CorralError(str(path), "is neither .png nor .svg", "name a file that ends so")
    if not path.parent.is_dir():
        raise CorralError(str(path), "its folder is not there", "make it, or name another")
    if importlib.util.find_spec("matplotlib") is None:
        step = "install it with: pip install 'corral[plot]'"
        raise CorralError("--plot", "matplotlib is not installed", step)


def plot(results: Sequence[Result], path: Path) -> None:
    """Prompt and generation beside each other, a line for each result. Raises CorralError."""
    refuse_plot(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    for axes, test in zip(figure.subplots(1, len(_TESTS)), _TESTS, strict=True):
        for result in results:
            _draw(axes, result, test)
        axes.set(title=test, xlabel="context, tokens", ylabel="tokens/s")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """Write a figure of matplotlib. Raises CorralError."""
    try:
        figure.savefig(path)
    except OSError as error:
        what = f"cannot be written: {error.strerror}"
        raise CorralError(str(path), what, "name another file") from error


def _draw(axes: Any, result: Result, test: Test) -> None:
    """The mean of each depth; bars are one standard deviation."""
    for sequences in sorted({m.sequences for m in result.measures}):
        found = [m for m in result.measures if (m.test, m.sequences) == (test, sequences)]
        found.sort(key=lambda measure: measure.depth_tokens)
        sides = [side(measure.samples) for measure in found]
        axes.errorbar(
            [measure.depth_tokens for measure in found],
            [one.mean for one in sides],
            yerr=[one.deviation for one in sides],
            label=_label(result, sequences),
            marker="o",
            markersize=3,
            capsize=3,
        )


def _label(result: Result, sequences: int) -> str:
    name = f"{result.name} {result.kind} {result.commit[:7]}, {result.began_at}"
    return name if sequences == 1 else f"{name}, {sequences} at a time"
