"""What the hosts of a fleet share: who builds which release, and in what order they change."""

from __future__ import annotations

from corral.plan.release import ReleasePlan
from corral.schema import Frozen


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
