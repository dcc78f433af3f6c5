"""The gateways of an inventory: what each serves, and which of them serve an instance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from corral.catalog import Catalog
from corral.gateway.keys import upstream_keys
from corral.gateway.plan import GatewayPlan, gateway_plan
from corral.inventory import Host
from corral.keys import KeyFile, ensure_keys
from corral.lockfile import resolve_instance
from corral.settings import HostPaths


def aliases(hosts: Sequence[Host], catalog: Catalog) -> dict[str, str]:
    """``host/instance`` -> its name in the API. Raises CorralError."""
    found = {}
    for host in hosts:
        for spec in host.spec.instances:
            where = f"{host.name}/{spec.name}"
            _, model, _ = resolve_instance(spec, catalog, where=where)
            found[where] = catalog.profile(spec.profile, where=where).alias or model
    return found


def gateways(hosts: Sequence[Host], catalog: Catalog, paths: HostPaths) -> dict[str, GatewayPlan]:
    """Host -> its gateway's plan, for those hosts of one inventory that are gateways.

    Raises CorralError.
    """
    if not any(host.spec.gateway for host in hosts):
        return {}
    named = aliases(hosts, catalog)
    plans = {h.name: gateway_plan(h, hosts, named, folder=paths.gateway) for h in hosts}
    return {name: plan for name, plan in plans.items() if plan}


def gateways_of(member: str, hosts: Sequence[Host], plans: Mapping[str, GatewayPlan]) -> list[Host]:
    """The gateways that ``host/instance`` is behind."""
    return [h for h in hosts if h.name in plans and plans[h.name].pool_of(member)]


def instance_keys(
    host: Host, instance: str, hosts: Sequence[Host], plans: Mapping[str, GatewayPlan]
) -> KeyFile:
    """The keys of an instance: its own first, then those of the gateways that it is behind.

    Raises CorralError.
    """
    own, name = ensure_keys(host, instance), f"{host.name}/{instance}"
    texts = [own.text]
    for gateway in gateways_of(name, hosts, plans):
        if pool := plans[gateway.name].pool_of(name):
            texts.append(upstream_keys(gateway, pool).text)
    return KeyFile(path=own.path, text="".join(texts))
