"""A reason not to start, or a word of advice, for the operator."""

from __future__ import annotations

from corral.schema import Frozen


class Finding(Frozen):
    """One reason not to start, and what to do about it; advice when it does not ``stop``."""

    what: str
    next_step: str
    stops: bool = True
