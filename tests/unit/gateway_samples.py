"""An inventory with a gateway in front of three hosts, from the sample catalog."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from corral.inventory.hosts import Host, parse_host
from corral.paths import HostPaths
from corral.plan.gateway import GatewayPlan
from corral.planning.gateways import gateways, needed_keys
from corral.store.api_keys import make_missing
from tests.samples import CHAT, LONG, SOCKET, catalog, host

OPEN: dict[str, Any] = {**CHAT, "address": "0.0.0.0"}


def fleet(keys: Path, **gateway: Any) -> list[Host]:
    """Two hosts in reach, one whose servers keep to themselves, and the gateway."""
    folder = {"keys_folder": str(keys)}
    small = {"port": 8000, "weights": {"two/chat": 25}, "may_differ": ["context", "slots"]}
    aliases = {"small": small}
    given = {"aliases": aliases, "trusted_networks": ["10.0.0.0/24"], **gateway}
    one = {"ssh_hostname": "one.lan", "member_address": "10.0.0.11"}
    return [
        host(OPEN, {**LONG, "address": "10.0.0.1"}, name="one", **one, **folder),
        host(OPEN, name="two", ssh_hostname="10.0.0.2", **folder),
        host(CHAT, SOCKET, name="shy", **folder),
        parse_host("gw", {"gateway": given, **folder}),
    ]


def plan(hosts: list[Host]) -> GatewayPlan:
    """Of the host gw."""
    return gateways(hosts, catalog(), HostPaths())["gw"]


def make_keys(hosts: list[Host]) -> None:
    """All keys that they need, as their first deploy does."""
    plans = {"gw": plan(hosts)}
    for one in hosts:
        make_missing(needed_keys(one, hosts, plans), lambda _: frozenset())
