"""The answer of an engine that counts its memory itself."""

from __future__ import annotations

from corral.plan.placement import InstanceNeed
from corral.schema import Frozen


class CacheSize(Frozen):
    """A KV cache: its tokens on one rank, and requests of the profile's length at a time in all."""

    tokens: int
    requests: float


class MemoryCount(Frozen):
    """Memory that an instance needs, and the size of its KV cache.

    + cache: None where it cannot be counted; ``need`` says why
    + refusal: why it cannot serve, or empty; + next_step: what helps
    + longest_tokens: the longest context of one request that it could serve, 0 for none
    """

    need: InstanceNeed
    cache: CacheSize | None = None
    refusal: str = ""
    next_step: str = ""
    longest_tokens: int = 0
