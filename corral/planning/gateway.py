"""What a gateway will serve, decided from all hosts of an inventory. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence

from corral.catalog.entries import EngineKind
from corral.errors import CorralError
from corral.inventory.gateway import AliasSpec, GatewaySpec, is_loopback, is_numeric
from corral.inventory.hosts import Host, InstanceSpec
from corral.plan.gateway import FULL_WEIGHT, GatewayPlan, Member, Pool, at, server_name
from corral.planning.pool_routes import closed_routes, health_check, open_routes
from corral.schema import Frozen, did_you_mean


class Served(Frozen):
    """What an instance serves: its name in the API, and the kind of its engine."""

    alias: str
    kind: EngineKind


class Known(Frozen):
    """What is known of an inventory when its gateways are planned.

    + hosts: that can be read; + served: by each of their instances, by ``host/instance``
    + partial: other hosts cannot be read: then nobody behind an alias is no mistake, and what
      comes of it tells who is behind a gateway, but not what it shall be
    """

    hosts: tuple[Host, ...]
    served: Mapping[str, Served]
    partial: bool = False


def gateway_plan(gateway: Host, known: Known, *, folder: str) -> GatewayPlan | None:
    """Decide what one gateway serves; None for a host that is none. Raises CorralError."""
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
        _refuse_strangers(gateway, spec, pool)
    _refuse_twins(gateway, plan)
    return plan


def _pool(gateway: Host, alias: str, wanted: AliasSpec, known: Known) -> Pool | None:
    """The servers of one alias; None where nobody is known of an inventory that is read in part."""
    found = [pair for pair in _instances(known.hosts) if known.served[_name(*pair)].alias == alias]
    members, left_out = [], []
    for host, instance in found:
        name = _name(host, instance)
        weight = wanted.weights.get(name, FULL_WEIGHT)
        if member := _member(gateway, host, instance, weight):
            members.append(member)
        else:
            listens = instance.address if instance.port else "a unix socket"
            left_out.append(f"{name} listens on {listens}")
    if known.partial and not members:
        return None
    where = f"{gateway.name}: gateway, alias {alias}"
    if not found:
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
    """An instance behind a gateway; None where the gateway does not reach it."""
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
    """ADDRESS:PORT at which a gateway finds a server of a host; None where it may not look."""
    found = reached_at(gateway, host, address) if address and port else None
    spec = gateway.spec.gateway
    inside = host.name == gateway.name and found is not None and is_loopback(found)
    if found is None or port is None or spec is None or not (inside or spec.trusts(found)):
        return None
    return at(found, port)


def reached_at(gateway: Host, host: Host, address: str) -> str | None:
    """Where a gateway reaches what listens on an address of a host."""
    listens, own = ipaddress.ip_address(address), host.name == gateway.name
    if listens.is_loopback and not own:
        return None
    return _everywhere(host, own=own) if listens.is_unspecified else address


def _everywhere(host: Host, *, own: bool) -> str:
    """Where to reach a server that listens on all addresses of its host."""
    if own:
        return "127.0.0.1"
    return host.spec.member_address or str(host.data.get("ssh_hostname") or host.name)


def _refuse_weights(wanted: AliasSpec, members: Sequence[Member], where: str) -> None:
    names = {member.name for member in members}
    for name in wanted.weights.keys() - names:
        what = f'weight for "{name}", which is not behind it{did_you_mean(name, names)}'
        raise CorralError(where, what, "name a host/instance that it serves")
    if not any(member.weight for member in members):
        raise CorralError(where, "all weights are 0: nobody would serve", "raise one of them")


def _refuse_strangers(gateway: Host, spec: GatewaySpec, pool: Pool) -> None:
    """The gateway speaks plain HTTP with its servers: its key and all prompts are in it."""
    outside = [m for m in pool.members if not (_is_inside(gateway, m) or spec.trusts(m.address))]
    if not outside:
        return
    first, own = outside[0], f'"trusted_networks" in "gateway" of {gateway.name}'
    told = ", ".join(f"{member.name} at {member.address}" for member in outside)
    if is_numeric(first.address) and not is_loopback(first.address):
        step = f'if that network is yours alone, add it, or "{first.address}", to {own}'
    else:
        step = f'give {_host_of(first)} a "member_address", numeric and within {own}'
    what = f"its key and all prompts would leave what it trusts, for {told}"
    raise CorralError(f"{gateway.name}: gateway, alias {pool.alias}", what, step)


def _is_inside(gateway: Host, member: Member) -> bool:
    """On loopback, where only the unit answers from the port of an instance of this host."""
    return _host_of(member) == gateway.name and is_loopback(member.address)


def _host_of(member: Member) -> str:
    """A host's name may have parts of its own."""
    return member.name.rpartition("/")[0]


def _refuse_twins(gateway: Host, plan: GatewayPlan) -> None:
    where, instances = f"{gateway.name}: gateway", gateway.spec.instances
    taken = [*plan.ports, *(i.port for i in instances if i.port)]
    if twins := [port for port in taken if taken.count(port) > 1]:
        raise CorralError(where, f"port {twins[0]} is used twice", "choose another one")
    names = [member.server for pool in plan.pools for member in pool.members]
    names += [pool.name for pool in plan.pools]
    if same := [name for name in names if names.count(name) > 1]:
        what = f"two of its servers or aliases would both be called {same[0]}"
        raise CorralError(where, what, "rename one of them")
    for instance in instances:
        if instance.name.startswith(("gateway-", "upstream-")):
            what = f'instance "{instance.name}" would share the key file of an alias'
            raise CorralError(where, what, "rename the instance")
