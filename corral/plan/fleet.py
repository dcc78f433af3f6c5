"""What the hosts of a fleet share: who builds which release, and how they change."""

from __future__ import annotations

from corral.plan.release import ReleasePlan
from corral.schema import Frozen


class FleetPolicy(Frozen):
    """How the hosts of a fleet change.

    + waves: hosts changed after each wave, counted or as a share; + canaries: hosts that are first
    + min_serving: members that each alias keeps; + soak_seconds: between the waves of a rollout
    """

    waves: tuple[int | str, ...] = (1, "20%", "100%")
    min_serving: int = 1
    soak_seconds: int = 60
    canaries: frozenset[str] = frozenset()


class Build(Frozen):
    """One release, built once for all who run it.

    + candidates: hosts that may build it, the best first; + users: hosts that run it
    + because: why the first candidate is the first
    """

    release: ReleasePlan
    candidates: tuple[str, ...]
    users: tuple[str, ...]
    because: str

    @property
    def builder(self) -> str:
        """Who builds it, unless that host fails."""
        return self.candidates[0]

    @property
    def receivers(self) -> tuple[str, ...]:
        """Hosts that get it as an archive."""
        return tuple(name for name in self.users if name != self.builder)
