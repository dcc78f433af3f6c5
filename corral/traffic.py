"""The gateways of an inventory, as activations see them: who is behind which alias, and drains."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from corral.activation import NoGateway, Traffic
from corral.inventory import Host
from corral.keys import KeyFile, ensure_keys
from corral.planning import Planner
from corral.waves import Pools

Say = Callable[[str], None]


def traffic(hosts: Sequence[Host], planner: Planner, say: Say) -> tuple[Traffic, Pools]:  # noqa: ARG001
    """What keeps requests from an instance while it changes, and who stands in for it.

    + hosts: all of one inventory; + say: told what a gateway could not do. Raises CorralError.
    """
    return NoGateway(), {}


def key_of(hosts: Sequence[Host], planner: Planner) -> Callable[[Host, str], KeyFile]:  # noqa: ARG001
    """What gives the keys of an instance, those of its gateways among them."""
    return ensure_keys
