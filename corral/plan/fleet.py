"""Data that the hosts of a fleet share: rollout policy, and which host builds which release."""

from __future__ import annotations

from corral.plan.release import ReleasePlan
from corral.schema import Frozen


class FleetPolicy(Frozen):
    """Rollout policy of a fleet.

    + waves: number or share of hosts changed after each wave; + canaries: hosts that change first
    + min_serving: members of each alias that serve at any time
    + soak_seconds: between the waves of a rollout
    """

    waves: tuple[int | str, ...] = (1, "20%", "100%")
    min_serving: int = 1
    soak_seconds: int = 60
    canaries: frozenset[str] = frozenset()


class Build(Frozen):
    """One release, built once for all hosts that run it.

    + candidates: hosts that may build it, best first; + users: hosts that run it
    + because: why the first candidate is the best
    """

    release: ReleasePlan
    candidates: tuple[str, ...]
    users: tuple[str, ...]
    because: str

    @property
    def builder(self) -> str:
        """The host that builds it, unless it fails."""
        return self.candidates[0]

    @property
    def receivers(self) -> tuple[str, ...]:
        """Hosts that get it as an archive."""
        return tuple(name for name in self.users if name != self.builder)
