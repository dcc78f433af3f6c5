"""Results of trials with dummy weights (files/corral_host/fit/trial.py)."""

from __future__ import annotations

from corral.schema import Frozen


class Figures(Frozen):
    """Memory that a server reports; None for what its version or its processor does not.

    + weights_gib, graphs_gib: of the fullest GPU; + cache_gib: KV cache of the GPU with the least
    + cache_tokens: tokens of the KV cache; + requests: of ``request_tokens`` each, at a time
    """

    weights_gib: float | None = None
    cache_gib: float | None = None
    graphs_gib: float | None = None
    cache_tokens: int | None = None
    request_tokens: int | None = None
    requests: float | None = None

    def __str__(self) -> str:
        parts = [
            _part("weights {:.2f} GiB", self.weights_gib),
            _part("CUDA graphs {:.2f} GiB", self.graphs_gib),
            _part("KV cache {:.2f} GiB", self.cache_gib),
            _part("{:,} tokens of cache", self.cache_tokens),
        ]
        if self.requests is not None and self.request_tokens is not None:
            parts.append(f"{self.requests:g} requests of {self.request_tokens:,} tokens at a time")
        return ", ".join(filter(None, parts)) or "no figures"


class Trial(Frozen):
    """What a trial of an instance found.

    + figures: None where it was not tried; + skipped: why not
    + at: time of the run; + seconds: that it took; + known: it is of an earlier deploy
    """

    instance: str
    figures: Figures | None = None
    skipped: str = ""
    at: str = ""
    seconds: float = 0
    known: bool = False

    def line(self) -> str:
        """The result as one sentence."""
        if self.figures is None:
            why = f"its memory is counted only: {self.skipped}"
            return f"{self.instance}: not tried with dummy weights, {why}"
        when = f"tried at {self.at}" if self.known else f"{self.seconds:.0f} s"
        return f"{self.instance}: with dummy weights it serves: {self.figures} ({when})"


def _part(text: str, value: float | None) -> str:
    return text.format(value) if value is not None else ""
