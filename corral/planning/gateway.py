"""The plan of a gateway, decided from all hosts of an inventory. Pure."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from corral.catalog.entries import EngineKind
from corral.errors import CorralError
from corral.inventory.gateway import AliasSpec, Difference, GatewaySpec, is_loopback, is_numeric
from corral.inventory.hosts import Host, InstanceSpec
from corral.plan.gateway import FULL_WEIGHT, GatewayPlan, Member, Pool, at, server_name
from corral.planning.pool_routes import closed_routes, health_check, open_routes
from corral.schema import Frozen, did_you_mean


class Served(Frozen):
    """The alias of an instance, the kind of its engine, and what its clients see of it.

    + context_tokens: of each slot; + vision: it takes images
    + most_requests: that it takes at once
    """

    alias: str
    kind: EngineKind
    context_tokens: int
    slots: int
    vision: bool = False
    most_requests: int | None = None

    def shown(self, difference: Difference) -> str:
        """What it has of something that servers of one alias can differ in, for messages."""
        if difference == "context":
            return f"{self.context_tokens:,} tokens"
        if difference == "vision":
            return "vision" if self.vision else "none"
        return str(self.slots)


class Known(Frozen):
    """The known part of an inventory when its gateways are planned.

    + hosts: hosts that can be read; + served: ``host/instance`` -> alias and engine
    + partial: some hosts cannot be read. Then an alias without members is no mistake, and the
      plan shows members of a gateway, but must not be deployed
    """

    hosts: tuple[Host, ...]
    served: Mapping[str, Served]
    partial: bool = False


def gateway_plan(gateway: Host, known: Known, *, folder: str) -> GatewayPlan | None:
    """Plan one gateway; None for a host without one. Raises CorralError."""
    spec = gateway.spec.gateway
    if spec is None:
        return None
    pools = (_pool(gateway, alias, wanted, known) for alias, wanted in spec.aliases.items())
    plan = GatewayPlan(
        folder=folder,
        address=spec.address,
        metrics_port=spec.metrics_port,
        tls=spec.tls_certificate is not None,
        pools=tuple(pool for pool in pools if pool),
    )
    for pool in plan.pools:
        _refuse_untrusted(gateway, spec, pool)
    _refuse_twins(gateway, plan)
    return plan


def _pool(gateway: Host, alias: str, wanted: AliasSpec, known: Known) -> Pool | None:
    """The servers of one alias; None where a partly read inventory has none."""
    instances = _instances(known.hosts)
    matching = [pair for pair in instances if known.served[_name(*pair)].alias == alias]
    members, left_out = [], []
    for host, instance in matching:
        name = _name(host, instance)
        weight = wanted.weights.get(name, FULL_WEIGHT)
        if member := _member(gateway, host, instance, weight):
            most = known.served[name].most_requests
            members.append(member.model_copy(update={"most_requests": most}))
        else:
            listens = instance.address if instance.port else "a unix socket"
            left_out.append(f"{name} listens on {listens}")
    if known.partial and not members:
        return None
    where = f"{gateway.name}: gateway, alias {alias}"
    if not matching:
        raise CorralError(
            where,
            f"no instance has this alias{did_you_mean(alias, _aliases(known))}",
            "name the model, or the profile's alias, of an instance",
        )
    if not members:
        what = f"none of its instances can be reached: {'; '.join(left_out)}"
        raise CorralError(where, what, 'give them an "address" on the network')
    if not known.partial:
        _refuse_weights(wanted, members, where)
    _refuse_differences(wanted, members, known, where)
    kinds = {member.name: known.served[member.name].kind for member in members}
    opened = open_routes(list(kinds.values()))
    return Pool(
        alias=alias,
        name=server_name(alias),
        port=wanted.port,
        members=tuple(members),
        open=opened,
        closed=closed_routes(opened),
        health=health_check(kinds, where),
        left_out=tuple(left_out),
    )


def _aliases(known: Known) -> set[str]:
    return {served.alias for served in known.served.values()}


def _instances(hosts: Sequence[Host]) -> Iterator[tuple[Host, InstanceSpec]]:
    return ((host, instance) for host in hosts for instance in host.spec.instances)


def _name(host: Host, instance: InstanceSpec) -> str:
    return f"{host.name}/{instance.name}"


def _member(gateway: Host, host: Host, instance: InstanceSpec, weight: int) -> Member | None:
    """An instance as a member of a gateway; None where the gateway cannot reach it."""
    address = reached_at(gateway, host, instance.address)
    if instance.port is None or address is None:
        return None
    name = _name(host, instance)
    return Member(
        name=name,
        server=server_name(name),
        address=address,
        port=instance.port,
        weight=weight,
    )


def place_of(gateway: Host, host: Host, address: str | None, port: int | None) -> str | None:
    """ADDRESS:PORT of a host's server for a gateway; None where it cannot or must not connect."""
    reached = reached_at(gateway, host, address) if address and port else None
    spec = gateway.spec.gateway
    inside = host.name == gateway.name and reached is not None and is_loopback(reached)
    if reached is None or port is None or spec is None or not (inside or spec.trusts(reached)):
        return None
    return at(reached, port)


def reached_at(gateway: Host, host: Host, address: str) -> str | None:
    """The address at which a gateway reaches a server that listens on ``address`` of a host."""
    listens, own = ipaddress.ip_address(address), host.name == gateway.name
    if listens.is_loopback and not own:
        return None
    return _member_address(host, own=own) if listens.is_unspecified else address


def _member_address(host: Host, *, own: bool) -> str:
    """The address for a server that listens on all addresses of its host."""
    if own:
        return "127.0.0.1"
    return host.spec.member_address or str(host.data.get("ssh_hostname") or host.name)


def _refuse_weights(wanted: AliasSpec, members: Sequence[Member], where: str) -> None:
    names = {member.name for member in members}
    for name in wanted.weights.keys() - names:
        what = f'weight for "{name}", which is not a member{did_you_mean(name, names)}'
        raise CorralError(where, what, "name a host/instance of this alias")
    if not any(member.weight for member in members):
        raise CorralError(where, "all weights are 0: no member would serve", "raise one of them")


def _refuse_differences(
    wanted: AliasSpec, members: Sequence[Member], known: Known, where: str
) -> None:
    """Raises CorralError where servers of an alias differ in what clients see of them.

    A request may go to any of them: one that fits the longest context is refused by the others, as
    is an image by those without vision.
    """
    for difference in get_args(Difference):
        found = {member.name: known.served[member.name].shown(difference) for member in members}
        if len(set(found.values())) > 1 and difference not in wanted.may_differ:
            listed = ", ".join(f"{name} has {value}" for name, value in found.items())
            accepted = json.dumps([*wanted.may_differ, difference])
            step = (
                'make them equal (see "overrides" of an instance), give some another "alias", or '
                f'accept it: "may_differ": {accepted} beside the port of the alias'
            )
            raise CorralError(where, f"its servers differ in {difference}: {listed}", step)


def _refuse_untrusted(gateway: Host, spec: GatewaySpec, pool: Pool) -> None:
    """Refuse untrusted networks: plain HTTP to members carries the gateway's key and prompts."""
    outside = [m for m in pool.members if not (_is_inside(gateway, m) or spec.trusts(m.address))]
    if not outside:
        return
    first, own = outside[0], f'"trusted_networks" in "gateway" of {gateway.name}'
    listed = ", ".join(f"{member.name} at {member.address}" for member in outside)
    if is_numeric(first.address) and not is_loopback(first.address):
        step = f'if that network is private, add it, or "{first.address}", to {own}'
    else:
        step = f'give {_host_of(first)} a "member_address", an IP address within {own}'
    what = f"its key and all prompts would leave its trusted networks, to {listed}"
    raise CorralError(f"{gateway.name}: gateway, alias {pool.alias}", what, step)


def _is_inside(gateway: Host, member: Member) -> bool:
    """Whether it is on loopback, where only the instance's unit can listen on its port."""
    return _host_of(member) == gateway.name and is_loopback(member.address)


def _host_of(member: Member) -> str:
    """The host of a member; its name may contain slashes."""
    return member.name.rpartition("/")[0]


def _refuse_twins(gateway: Host, plan: GatewayPlan) -> None:
    where, instances = f"{gateway.name}: gateway", gateway.spec.instances
    taken = [*plan.ports, *(i.port for i in instances if i.port)]
    if twins := [port for port in taken if taken.count(port) > 1]:
        raise CorralError(where, f"port {twins[0]} is used twice", "choose another port")
    names = [member.server for pool in plan.pools for member in pool.members]
    names += [pool.name for pool in plan.pools]
    if same := [name for name in names if names.count(name) > 1]:
        what = f"two of its servers or aliases would both be called {same[0]}"
        raise CorralError(where, what, "rename one of them")
    for instance in instances:
        if instance.name.startswith(("gateway-", "upstream-")):
            what = f'instance "{instance.name}" would share the key file of an alias'
            raise CorralError(where, what, "rename the instance")
