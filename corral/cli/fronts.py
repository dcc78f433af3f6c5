"""Gateways in front of servers that a command stops: drained first, and the last one stays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import click

from corral.cli.reach import Target, found_on
from corral.errors import CorralError
from corral.gateway.control import DRAIN_SECONDS
from corral.gateway.moves import stored_place, may_serve
from corral.inventory.hosts import Host
from corral.rollout.pausing import Gateways
from corral.rollout.traffic import Say
from corral.terminal import say

force_option = click.option(
    "--force",
    is_flag=True,
    help="Also the last server of an alias, or with requests in flight, which then fail.",
)


def fronts(
    target: Target, asked: Sequence[Target], command: str, *, force: bool, tell: Say = say
) -> Gateways:
    """Those of the inventory that a host is in; + asked: whose servers they are asked about."""
    hosts = tuple(host for host in target.inventory.hosts if "gateway" in host.data)
    return Gateways(hosts, command, tell, force, partial(_may_have, asked))


def _may_have(asked: Sequence[Target], gateway: Host, server: str) -> bool:
    """Whether a silent gateway may be in front of a server, by what that server's host keeps."""
    name, _, instance = server.rpartition("/")
    target = next(target for target in asked if target.host.name == name)
    try:
        place = stored_place(found_on(target)[instance].plan)
    except (CorralError, KeyError):
        return True
    return place is None or may_serve(gateway, target.host, place)


def refuse_last(
    targets: Sequence[Target], command: str, *, force: bool, together: bool, tell: Say = say
) -> None:
    """Before anything is touched, so that nothing is done by half.

    + together: all servers are away at once. Raises CorralError.
    """
    for path in dict.fromkeys(target.inventory.path for target in targets):
        same = [target for target in targets if target.inventory.path == path]
        servers = [f"{target.host.name}/{name}" for target in same for name in target.names]
        found = fronts(same[0], same, command, force=force, tell=tell)
        found.refuse_last(servers, together=together)


def refuse_empty(targets: Sequence[Target]) -> None:
    """Raises CorralError for a host without any instance."""
    for target in targets:
        if not target.names:
            raise CorralError(target.host.name, "has no instance", "name a host that has")


def limit_seconds(host: Host, name: str) -> int:
    """How long requests in flight at an instance are waited for."""
    limits = {one.name: one.drain_seconds for one in host.spec.instances}
    return limits.get(name, DRAIN_SECONDS)
