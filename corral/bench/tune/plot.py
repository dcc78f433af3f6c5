"""Draw the settings that were measured, and the front of those that no other beats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corral.bench.plot import refuse_plot, save
from corral.bench.tune.record import Row

_OTHERS = {
    "prompt_tokens_per_second": "prompts, tokens/s",
    "first_token_seconds": "time to first token at the load, s",
}


def plot_front(rows: Sequence[Row], name: str, path: Path) -> None:
    """Answers against prompts, and against the time to the first token. Raises CorralError."""
    refuse_plot(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5), layout="constrained")
    for axes, other in zip(figure.subplots(1, len(_OTHERS)), _OTHERS, strict=True):
        _draw(axes, rows, other)
    figure.suptitle(name)
    save(figure, path)


def _draw(axes: Any, rows: Sequence[Row], other: str) -> None:
    kinds = {
        "measured": [row for row in rows if row.choices and not row.front],
        "front": [row for row in rows if row.choices and row.front],
        "now": [row for row in rows if not row.choices],
    }
    for number, (label, own) in enumerate(kinds.items()):
        xs = [row.answer_tokens_per_second for row in own]
        ys = [getattr(row, other) for row in own]
        axes.scatter(xs, ys, color=f"C{number}", label=label, s=24)
    for row in kinds["front"]:
        at = (row.answer_tokens_per_second, getattr(row, other))
        axes.annotate(", ".join(row.choices.values()), at, fontsize="x-small")
    axes.set(xlabel="answers, tokens/s", ylabel=_OTHERS[other])
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
