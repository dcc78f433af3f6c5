"""The gateways of an inventory: their plans, and which of them serve an instance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from corral.catalog.entries import Catalog, EngineKind
from corral.engines import engine_module
from corral.errors import CorralError
from corral.inventory.hosts import Host
from corral.lock.lock_file import instance_profile, resolve_instance
from corral.paths import HostPaths
from corral.plan.gateway import GatewayPlan, Pool
from corral.planning.gateway import Known, Served, gateway_plan
from corral.store.api_keys import KeyFile, keys_in, stored_keys
from corral.store.gateway_keys import GRAFANA, METRICS, SCRAPE, names, upstream_keys, upstream_name


def served(hosts: Sequence[Host], catalog: Catalog) -> dict[str, Served]:
    """``host/instance`` -> what clients see of it. Raises CorralError."""
    by_instance = {}
    for host in hosts:
        for spec in host.spec.instances:
            where = f"{host.name}/{spec.name}"
            named = {"where": where, "inventory": host.origin}
            engine, model, _ = resolve_instance(spec, catalog, **named)
            profile = instance_profile(spec, catalog, **named).profile
            kind = catalog.engine(engine, where=where).kind
            by_instance[where] = Served(
                alias=profile.alias or model,
                kind=kind,
                most_requests=engine_module(kind).routes.most_requests(profile.slots),
                context_tokens=profile.context_tokens_per_slot,
                slots=profile.slots,
                vision=profile.vision,
            )
    return by_instance


def gateways(hosts: Sequence[Host], catalog: Catalog, paths: HostPaths) -> dict[str, GatewayPlan]:
    """Host -> its gateway's plan, for the hosts with a gateway. Raises CorralError."""
    if not any(host.spec.gateway for host in hosts):
        return {}
    known = Known(hosts=tuple(hosts), served=served(hosts, catalog))
    plans = {h.name: gateway_plan(h, known, folder=paths.gateway) for h in hosts}
    return {name: plan for name, plan in plans.items() if plan}


def pools(plans: Mapping[str, GatewayPlan]) -> dict[str, list[str]]:
    """``ALIAS at GATEWAY`` -> the host of each member that gets requests."""
    return {
        f"{pool.alias} at {gateway}": [
            member.name.rpartition("/")[0] for member in pool.members if member.weight
        ]
        for gateway, plan in plans.items()
        for pool in plan.pools
    }


def gateways_of(member: str, hosts: Sequence[Host], plans: Mapping[str, GatewayPlan]) -> list[Host]:
    """The gateways in front of ``host/instance``."""
    return [h for h in hosts if h.name in plans and plans[h.name].pool_of(member)]


def needed_keys(
    host: Host, hosts: Sequence[Host], plans: Mapping[str, GatewayPlan]
) -> list[tuple[Host, str]]:
    """All keys that the plan of a host needs, as pairs of owning host and key name."""
    pairs = [(host, spec.name) for spec in host.spec.instances]
    for spec in host.spec.instances:
        name = f"{host.name}/{spec.name}"
        pairs += [(one, upstream_name(pool)) for one, pool in _pools_of(name, hosts, plans)]
    if _is_scraped(host):
        pairs.append((host, SCRAPE))
    if plan := plans.get(host.name):
        pairs += [(host, name) for name in names(plan)]
    if host.spec.monitoring and host.spec.monitoring.prometheus:
        pairs += [(one, SCRAPE) for one in hosts if _is_scraped(one)]
        pairs += [(one, METRICS) for one in hosts if _has_metrics(plans.get(one.name))]
    if host.spec.monitoring and host.spec.monitoring.grafana:
        pairs.append((host, GRAFANA))
    return list({(one.name, name): (one, name) for one, name in pairs}.values())


def instance_keys(
    host: Host, instance: str, hosts: Sequence[Host], plans: Mapping[str, GatewayPlan]
) -> KeyFile:
    """The keys of an instance: its own first, then those of the gateways in front of it.

    Raises CorralError; LostKeysError where the store lacks some.
    """
    own, *others = _key_files(host, instance, hosts, plans).values()
    return KeyFile(path=own.path, text="".join([own.text, *(other.text for other in others)]))


def refuse_keys(
    host: Host,
    instance: str,
    kind: EngineKind,
    hosts: Sequence[Host],
    plans: Mapping[str, GatewayPlan],
) -> None:
    """Raise CorralError where the engine of an instance cannot take one of its keys."""
    for name, file in _key_files(host, instance, hosts, plans).items():
        for number, key in enumerate(keys_in(file.text), start=1):
            if problem := engine_module(kind).key_problem(key):
                what = f"key {number} of {file.path} {problem}, and {host.name}/{instance} needs it"
                step = (
                    f"`corral keys new {name} --replace`, then deploy and give clients the new one"
                )
                raise CorralError(name, what, step)


def _key_files(
    host: Host, instance: str, hosts: Sequence[Host], plans: Mapping[str, GatewayPlan]
) -> dict[str, KeyFile]:
    """HOST/NAME of an instance's keys -> its own first, then those of gateways and monitoring."""
    name = f"{host.name}/{instance}"
    files = {name: stored_keys(host, instance)}
    for gateway, pool in _pools_of(name, hosts, plans):
        files[f"{gateway.name}/{upstream_name(pool)}"] = upstream_keys(gateway, pool)
    if _is_scraped(host):
        files[f"{host.name}/{SCRAPE}"] = stored_keys(host, SCRAPE)
    return files


def _is_scraped(host: Host) -> bool:
    """Whether its instances take a key for a Prometheus, which is no client's."""
    return host.spec.monitoring is not None and bool(host.spec.instances)


def _has_metrics(plan: GatewayPlan | None) -> bool:
    return plan is not None and plan.metrics_port is not None


def _pools_of(
    member: str, hosts: Sequence[Host], plans: Mapping[str, GatewayPlan]
) -> list[tuple[Host, Pool]]:
    behind = gateways_of(member, hosts, plans)
    pairs = [(gateway, plans[gateway.name].pool_of(member)) for gateway in behind]
    return [(gateway, pool) for gateway, pool in pairs if pool]
