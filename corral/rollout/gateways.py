"""Changes of gateways in a rollout, after the instances behind them have changed."""

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
from corral.planning.interim_gateway import Settled
from corral.rollout.journal import GatewayStep

Pair = tuple[Host, HostPlan]


class Gateways(Protocol):
    """The gateways that a rollout may change, by name."""

    def switch(self, name: str, settled: Settled) -> bool:
        """Activate the planned generation; False where it runs already. Raises CorralError."""

    def revert(self, name: str) -> None:
        """Revert the last switch; servers keep their addresses. Raises CorralError."""


class NoGateways:
    """No gateways to change."""

    def switch(self, *_: object) -> bool:
        """False: nothing changes."""
        return False

    def revert(self, *_: object) -> None:
        """Does nothing."""


@dataclass(frozen=True)
class PlannedGateways:
    """Gateways with their plans; ``rollout``: id of the rollout that changes them."""

    pairs: Sequence[Pair]
    templates: Path
    rollout: str

    def steps(self, settled: Settled) -> tuple[GatewayStep, ...]:
        """The gateways that will change after the instances. Raises CorralError."""
        steps = []
        for host, plan in self.pairs:
            if wanted := self._change(host, plan, settled):
                steps.append(GatewayStep(host=host.name, changes=wanted.changes))
        return tuple(steps)

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
        step = "add its connection keys to the inventory, then run the same command again"
        raise CorralError(name, "is no longer a gateway of the inventory", step)

    def _change(self, host: Host, plan: HostPlan, settled: Settled) -> GatewayChange | None:
        if plan.gateway is None:
            return None
        return change(host, plan.gateway, settled, paths=plan.paths, templates=self.templates)


def settled_hosts(hosts: Sequence[str]) -> Callable[[str], bool]:
    """Whether HOST/INSTANCE serves its plan: true for instances of these hosts."""
    return lambda name: name.rpartition("/")[0] in hosts
