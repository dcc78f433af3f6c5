"""What a rollout changes at gateways themselves, once the instances behind them have changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from corral.errors import CorralError
from corral.gateway import control
from corral.gateway.change import GatewayChange, change
from corral.inventory.hosts import Host
from corral.plan.host import HostPlan
from corral.planning.gateway_between import Settled
from corral.rollout.journal import GatewayStep

Pair = tuple[Host, HostPlan]


class Gateways(Protocol):
    """The gateways that a rollout may change, by their names."""

    def switch(self, name: str, settled: Settled) -> bool:
        """Switch to what is planned; False where it runs already. Raises CorralError."""

    def revert(self, name: str) -> None:
        """Undo that; servers stay where they are. Raises CorralError."""


class NoGateways:
    """There are none to change."""

    def switch(self, *_: object) -> bool:
        """Nothing was changed."""
        return False

    def revert(self, *_: object) -> None:
        """Nothing is to be undone."""


@dataclass(frozen=True)
class PlannedGateways:
    """Gateways as they are reached and planned; ``rollout``: that changes them."""

    pairs: Sequence[Pair]
    templates: Path
    rollout: str

    def steps(self, settled: Settled) -> tuple[GatewayStep, ...]:
        """What will be another than now once the instances have changed. Raises CorralError."""
        found = []
        for host, plan in self.pairs:
            if wanted := self._change(host, plan, settled):
                found.append(GatewayStep(host=host.name, changes=wanted.changes))
        return tuple(found)

    def switch(self, name: str, settled: Settled) -> bool:
        """See ``Gateways``."""
        host, plan = self._of(name)
        if wanted := self._change(host, plan, settled):
            control.install(host, wanted.plan, wanted.files, rollout=self.rollout)
        return wanted is not None

    def revert(self, name: str) -> None:
        """See ``Gateways``."""
        control.revert(self._of(name)[0], rollout=self.rollout)

    def _of(self, name: str) -> Pair:
        for pair in self.pairs:
            if pair[0].name == name:
                return pair
        step = "describe there how it is reached, then ask again"
        raise CorralError(name, "is no gateway of the inventory any more", step)

    def _change(self, host: Host, plan: HostPlan, settled: Settled) -> GatewayChange | None:
        if plan.gateway is None:
            return None
        return change(host, plan.gateway, settled, paths=plan.paths, templates=self.templates)


def settled_hosts(hosts: Sequence[str]) -> Callable[[str], bool]:
    """HOST/INSTANCE of these hosts serve their plan, or will."""
    return lambda name: name.rpartition("/")[0] in hosts
