"""Rollout policy of a fleet, as keys in the data of its hosts."""

from __future__ import annotations

from pydantic import Field

from corral.schema import Frozen


class PolicyKeys(Frozen):
    """Keys in host data about the whole fleet; planning merges them into one policy."""

    canary: bool = Field(default=False, description="changes before all other hosts")
    waves: tuple[int | str, ...] = Field(
        default=(1, "20%", "100%"),
        description="number or share of hosts that are changed after each wave",
    )
    min_serving: int = Field(
        default=1, ge=0, description="members of each alias that serve at any time"
    )
    soak_seconds: int = Field(
        default=60, ge=0, description="time a wave must stay healthy before the next one"
    )
