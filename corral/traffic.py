"""The gateways of an inventory, as activations see them: who is behind which alias, and drains."""

from __future__ import annotations

from collections.abc import Sequence

from corral.activation import NoGateway, Traffic
from corral.inventory import Host
from corral.waves import Pools


def pools(_: Sequence[Host]) -> Pools:
    """Alias -> hosts of its members."""
    return {}


def traffic(_: Sequence[Host]) -> Traffic:
    """What keeps requests from an instance while it changes."""
    return NoGateway()
