"""Native: the server runs from the folder of its release."""

from __future__ import annotations

from corral.plan.runtime import NATIVE, RuntimePlan
from corral.runtimes.base import Sandbox, Start


class Native:
    """See corral.runtimes.base.Runtime."""

    kind = "native"
    packages: tuple[str, ...] = ()

    def weights(self, path: str, models: str) -> str:  # noqa: ARG002
        """The path on the host."""
        return path

    def sandbox(self, *, unpacks: bool) -> Sandbox:  # noqa: ARG002
        """The common sandbox."""
        return Sandbox()

    def plan(self, start: Start) -> RuntimePlan:  # noqa: ARG002
        """Nothing precedes it."""
        return NATIVE
