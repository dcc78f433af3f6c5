"""Servers that move to another port, address or alias behind their gateways."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from corral_shared.gateway_lines import NEXT, Line, lines_of, server_lines
from pydantic import ValidationError, field_validator

from corral.gateway import control
from corral.gateway.control import Installed, ServerState
from corral.inventory.hosts import Host
from corral.plan.gateway import FULL_WEIGHT, GatewayPlan, server_name
from corral.plan.instance import InstancePlan
from corral.planning.gateway import place_of, reached_at
from corral.schema import Frozen

# HAProxy's result of a passed check; an asterisk precedes it while the next check runs.
_PASSED = "L7OK"


class Place(Frozen):
    """The address, port and alias of a generation."""

    alias: str
    address: str | None
    port: int | None

    @field_validator("address")
    @classmethod
    def _numeric(cls, address: str | None) -> str | None:
        return address and str(ip_address(address))


def planned_place(instance: InstancePlan) -> Place:
    """The place of an instance in its plan."""
    end = instance.endpoint
    return Place(alias=instance.alias, address=end.address, port=end.port)


def stored_place(plan: dict[str, Any]) -> Place | None:
    """The place of an instance in a plan stored on its host; None where it has none."""
    end = plan.get("endpoint")
    if not isinstance(end, dict):
        return None
    place = {"alias": plan.get("alias"), "address": end.get("address"), "port": end.get("port")}
    try:
        return Place.model_validate(place)
    except ValidationError:
        return None


def expect(
    gateway: Host, plan: GatewayPlan | None, now: Installed, server: Host, name: str, place: Place
) -> bool:
    """Add the new place of a server to a gateway; its checks find the server at either place.

    + plan: None where it cannot be planned; + now: installed generation of the gateway
    + server: the host of ``name``, which is HOST/INSTANCE
    Returns whether ``keep`` must follow. Raises CorralError.
    """
    known = lines_of(now.config, server_name(name))
    line = _line(gateway, plan, server, name, place, now.config)
    if line and known and line["place"] not in [one["place"] for one in known]:
        old: Line = {**known[0], "server": server_name(name)}
        new: Line = {**line, "server": f"{server_name(name)}{NEXT}"}
        control.place(gateway, name, [old, new])
    return known != ([line] if line else [])


def may_serve(gateway: Host, server: Host, place: Place) -> bool:
    """Whether a gateway may have a server at this place, by its inventory.

    + server: the host of the server
    """
    spec = gateway.spec.gateway
    if spec is None:
        # Its data has a mistake.
        return True
    reached = place.address and place.port and reached_at(gateway, server, place.address)
    return place.alias in spec.aliases and bool(reached)


def not_found(states: Sequence[ServerState], server: str) -> ServerState | None:
    """The state of a moving server at its new place, where checks do not pass there yet.

    + server: HOST/INSTANCE. The new place starts with the state of the old: only a check counts.
    """
    new = f"{server_name(server)}{NEXT}"
    rows = (one for one in states if one.server == new)
    return next((one for one in rows if not (one.up and _PASSED in one.check)), None)


def keep(
    gateway: Host, plan: GatewayPlan | None, server: Host, name: str, place: Place | None
) -> None:
    """Keep one place of a server in a gateway; ``place`` None: the one before ``expect``.

    Raises CorralError.
    """
    config = control.installed(gateway).config
    known = lines_of(config, server_name(name))
    wanted = [one for one in known if one["server"] == server_name(name)]
    if place is not None:
        line = _line(gateway, plan, server, name, place, config)
        wanted = [line] if line else []
    if wanted != known:
        control.place(gateway, name, wanted)


def _line(
    gateway: Host, plan: GatewayPlan | None, server: Host, name: str, place: Place, config: str
) -> Line | None:
    """The server line for a place; None where the gateway lacks its alias or cannot reach it."""
    pool = server_name(place.alias)
    where = place_of(gateway, server, place.address, place.port)
    if where is None or pool not in {one["pool"] for one in server_lines(config)}:
        return None
    own = server_name(name)
    pools = plan.pools if plan else ()
    planned = {m.server: m for p in pools if p.name == pool for m in p.members}
    member = planned.get(own)
    line: Line = {"pool": pool, "server": own, "place": where, "weight": str(FULL_WEIGHT)}
    if member:
        line["weight"] = str(member.weight)
        if member.most_requests:
            line["limit"] = str(member.most_requests)
    for one in lines_of(config, own):
        # A changed weight or limit is a change of the gateway, not of the server.
        if one["pool"] == pool:
            line = {**one, "server": own, "place": where}
    return line
