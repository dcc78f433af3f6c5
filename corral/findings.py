"""Findings of a check before a change: a blocker, or advice."""

from __future__ import annotations

from corral.schema import Frozen


class Finding(Frozen):
    """One finding and what to do about it; ``stops``: it blocks, otherwise it is advice."""

    what: str
    next_step: str
    stops: bool = True
