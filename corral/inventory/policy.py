"""How a fleet changes, as the data of each of its hosts says."""

from __future__ import annotations

from pydantic import Field

from corral.schema import Frozen


class PolicyKeys(Frozen):
    """Keys in host data that are about the whole fleet; planning makes one policy of them."""

    canary: bool = Field(default=False, description="changes before all other hosts")
    waves: tuple[int | str, ...] = Field(
        default=(1, "20%", "100%"), description="hosts that changed after each wave, or their share"
    )
    min_serving: int = Field(
        default=1, ge=0, description="members that serve each alias all the time"
    )
    soak_seconds: int = Field(
        default=60, ge=0, description="healthy for so long before the next wave of a rollout"
    )
