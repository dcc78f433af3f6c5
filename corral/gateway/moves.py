"""A server that moves behind its gateways: to another port, address or alias, and back."""

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

# In HAProxy's words, behind an asterisk while the next check runs.
_PASSED = "L7OK"


class Place(Frozen):
    """Where a generation of an instance serves, and under which name."""

    alias: str
    address: str | None
    port: int | None

    @field_validator("address")
    @classmethod
    def _numeric(cls, address: str | None) -> str | None:
        return address and str(ip_address(address))


def planned_place(instance: InstancePlan) -> Place:
    """Where its plan puts it."""
    end = instance.endpoint
    return Place(alias=instance.alias, address=end.address, port=end.port)


def kept_place(plan: dict[str, Any]) -> Place | None:
    """Where a plan that a host keeps put it; None for one that does not say."""
    end = plan.get("endpoint")
    if not isinstance(end, dict):
        return None
    found = {"alias": plan.get("alias"), "address": end.get("address"), "port": end.get("port")}
    try:
        return Place.model_validate(found)
    except ValidationError:
        return None


def expect(
    gateway: Host, plan: GatewayPlan | None, now: Installed, server: Host, name: str, place: Place
) -> bool:
    """Let a gateway look for a server where it is, and where it will be; its checks find it.

    + plan: None where it cannot be planned; + now: what the gateway has
    + server: the host of ``name``, which is HOST/INSTANCE
    Gives whether ``keep`` has something to do afterwards. Raises CorralError.
    """
    known = lines_of(now.config, server_name(name))
    line = _line(gateway, plan, server, name, place, now.config)
    if line and known and line["place"] not in [one["place"] for one in known]:
        old: Line = {**known[0], "server": server_name(name)}
        new: Line = {**line, "server": f"{server_name(name)}{NEXT}"}
        control.place(gateway, name, [old, new])
    return known != ([line] if line else [])


def may_serve(gateway: Host, server: Host, place: Place) -> bool:
    """Whether a gateway may have a server that is in this place, as far as its inventory tells.

    + server: the host of it
    """
    spec = gateway.spec.gateway
    if spec is None:
        # There is a mistake in what it shall be.
        return True
    reached = place.address and place.port and reached_at(gateway, server, place.address)
    return place.alias in spec.aliases and bool(reached)


def not_found(states: Sequence[ServerState], server: str) -> ServerState | None:
    """The new place of a server that moves, where this gateway's checks do not pass there.

    + server: HOST/INSTANCE. It begins in the state that the old place had: a check tells.
    """
    new = f"{server_name(server)}{NEXT}"
    rows = (one for one in states if one.server == new)
    return next((one for one in rows if not (one.up and _PASSED in one.check)), None)


def keep(
    gateway: Host, plan: GatewayPlan | None, server: Host, name: str, place: Place | None
) -> None:
    """Let a gateway look for a server there alone; None: where it was before ``expect``.

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
    """Its line for a place; None where this gateway has no such alias, or does not reach it."""
    pool = server_name(place.alias)
    where = place_of(gateway, server, place.address, place.port)
    if where is None or pool not in {one["pool"] for one in server_lines(config)}:
        return None
    own = server_name(name)
    pools = plan.pools if plan else ()
    planned = {m.server: m.weight for p in pools if p.name == pool for m in p.members}
    weight = str(planned.get(own, FULL_WEIGHT))
    for one in lines_of(config, own):
        # A share that is planned to be another one is a change of the gateway alone.
        if one["pool"] == pool:
            weight = one["weight"]
    return {"pool": pool, "server": own, "place": where, "weight": weight}
