"""Gateways in front of servers that a command stops; the last member of an alias stays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import click

from corral.cli.reach import Target, observed_on
from corral.errors import CorralError
from corral.gateway.control import DRAIN_SECONDS
from corral.gateway.moves import may_serve, stored_place
from corral.inventory.hosts import Host
from corral.rollout.pausing import Gateways
from corral.rollout.traffic import PrintLine
from corral.terminal import echo

force_option = click.option(
    "--force",
    is_flag=True,
    help="Even the last member of an alias, or with requests in flight, which then fail.",
)


def fronts(
    target: Target,
    selected: Sequence[Target],
    command: str,
    *,
    force: bool,
    print_line: PrintLine = echo,
) -> Gateways:
    """The gateways of a host's inventory; ``selected``: targets whose servers will change."""
    hosts = tuple(host for host in target.inventory.hosts if "gateway" in host.data)
    return Gateways(hosts, command, print_line, force, partial(_may_have, selected))


def _may_have(selected: Sequence[Target], gateway: Host, server: str) -> bool:
    """Whether a gateway that does not answer may be in front of a server, by its stored plan."""
    name, _, instance = server.rpartition("/")
    target = next(target for target in selected if target.host.name == name)
    try:
        place = stored_place(observed_on(target)[instance].plan)
    except (CorralError, KeyError):
        return True
    return place is None or may_serve(gateway, target.host, place)


def refuse_last(
    targets: Sequence[Target],
    command: str,
    *,
    force: bool,
    together: bool,
    print_line: PrintLine = echo,
) -> None:
    """Check all targets before any changes, so that nothing is half done.

    + together: all servers are down at once. Raises CorralError.
    """
    for path in dict.fromkeys(target.inventory.path for target in targets):
        same = [target for target in targets if target.inventory.path == path]
        servers = [f"{target.host.name}/{name}" for target in same for name in target.names]
        found = fronts(same[0], same, command, force=force, print_line=print_line)
        found.refuse_last(servers, together=together)


def refuse_empty(targets: Sequence[Target]) -> None:
    """Raises CorralError for a host without any instance."""
    for target in targets:
        if not target.names:
            raise CorralError(target.host.name, "has no instance", "name a host that has")


def limit_seconds(host: Host, name: str) -> int:
    """Time limit for requests in flight at an instance."""
    limits = {one.name: one.drain_seconds for one in host.spec.instances}
    return limits.get(name, DRAIN_SECONDS)
