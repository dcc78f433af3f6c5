"""The gate of an instance as planned: what a server must prove beyond answering."""

from __future__ import annotations

from corral.catalog.gate import GoldenPrompt
from corral.schema import Frozen


class SpeedGate(Frozen):
    """Tokens per second, compared with the host's baseline for the profile.

    + prompt_tokens: prompt lengths to measure; + epsilon: allowed loss, as a fraction
    + runs: at each length, up to ``max_runs`` while the spread allows no verdict
    """

    prompt_tokens: tuple[int, ...]
    generated_tokens: int
    runs: int
    max_runs: int
    epsilon: float


class PerplexityGate(Frozen):
    """Perplexity of the weights on a text, measured by a program of the engine.

    + text: file name; + text_path: on the host; + limit: highest perplexity that passes
    """

    text: str
    text_path: str
    limit: float
    argv: tuple[str, ...]


class GatePlan(Frozen):
    """What a server must prove, beyond answering, before its generation is kept.

    + tool_call: a reply that must be a tool call is a well-formed one
    + reasoning: reasoning is apart from the reply
    """

    golden: tuple[GoldenPrompt, ...] = ()
    speed: SpeedGate | None = None
    perplexity: PerplexityGate | None = None
    soak_seconds: int = 0
    tool_call: bool = False
    reasoning: bool = False
