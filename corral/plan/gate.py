"""What a server must prove beyond answering, before its generation is kept."""

from __future__ import annotations

from corral.catalog.gate import GoldenPrompt
from corral.schema import Frozen


class SpeedGate(Frozen):
    """Tokens per second, compared with the baseline that the host keeps for the profile.

    + prompt_tokens: lengths that are measured; + epsilon: the share that may be lost
    + runs: at each length; up to ``max_runs`` while the spread leaves the answer open
    """

    prompt_tokens: tuple[int, ...]
    generated_tokens: int
    runs: int
    max_runs: int
    epsilon: float


class PerplexityGate(Frozen):
    """Perplexity of the weights on a text, by a program of the engine.

    + text: the file's name; + text_path: on the host; + limit: the most that is kept
    """

    text: str
    text_path: str
    limit: float
    argv: tuple[str, ...]


class GatePlan(Frozen):
    """What a server must prove beyond answering, before its generation is kept."""

    golden: tuple[GoldenPrompt, ...] = ()
    speed: SpeedGate | None = None
    perplexity: PerplexityGate | None = None
    soak_seconds: int = 0
