"""From what a person types to hosts and instances."""

from __future__ import annotations

from pathlib import Path

import click

from corral.errors import CorralError
from corral.gateway.plan import GatewayPlan
from corral.inventory import Host, load_inventory
from corral.key_proof import check_document
from corral.plan import HostPlan
from corral.planning import Planner
from corral.project import load_planner, project_root
from corral.schema import did_you_mean

inventory_option = click.option(
    "-i", "--inventory", type=click.Path(path_type=Path), help="One inventory; all if not given."
)


def inventories(chosen: Path | None) -> list[Path]:
    """The chosen inventory, or every one of inventories/."""
    return [chosen] if chosen else sorted((project_root() / "inventories").glob("*.py"))


def all_hosts(chosen: Path | None) -> list[Host]:
    """Hosts of the chosen inventory, or of all. Raises CorralError."""
    return [host for hosts in fleets(chosen) for host in hosts]


def fleets(chosen: Path | None) -> list[list[Host]]:
    """The same, each inventory for itself. Raises CorralError."""
    return [load_inventory(path) for path in inventories(chosen)]


def select(names: tuple[str, ...], chosen: Path | None) -> list[tuple[Host, HostPlan]]:
    """Hosts with plans, narrowed to what ``names`` say: HOST, INSTANCE or HOST/INSTANCE.

    No name means every host, which needs an inventory to be chosen. Raises CorralError.
    """
    if not names and chosen is None:
        raise CorralError("corral", "no host or instance named", "name some, or give -i INVENTORY")
    inventories_hosts = fleets(chosen)
    _refuse_unknown(names, [host for hosts in inventories_hosts for host in hosts])
    planner = load_planner(project_root())
    found = []
    for hosts in inventories_hosts:
        gateways = _gateways(names, hosts, planner)
        for host in hosts:
            wanted = {i for i in _instances(host) if not names or _any_matches(names, host, i)}
            if wanted:
                plan = planner.plan_host(host)
                kept = tuple(i for i in plan.instances if i.name in wanted)
                changes = {"instances": kept, "gateway": gateways.get(host.name)}
                found.append((host, plan.model_copy(update=changes)))
    return found


def check_documents(targets: list[tuple[Host, HostPlan]], chosen: Path | None) -> dict[str, str]:
    """Host -> its plan as checks take it, with what the store says of its keys.

    + targets: selected by ``select`` from the same inventory. Raises CorralError.
    """
    wanted, found = {host.name: (host, plan) for host, plan in targets}, {}
    planner = load_planner(project_root())
    for hosts in fleets(chosen):
        if own := [host.name for host in hosts if host.name in wanted]:
            plans = planner.gateways(hosts)
            found.update({n: check_document(*wanted[n], hosts, plans) for n in own})
    return found


def select_one_host(name: str, chosen: Path | None) -> tuple[Host, HostPlan]:
    """The only host that ``name`` fits. Raises CorralError when it fits several."""
    found = select((name,), chosen)
    if len(found) != 1:
        several = " and ".join(host.name for host, _ in found)
        raise CorralError(name, f"is on {several}", "name one as HOST/INSTANCE")
    return found[0]


def _refuse_unknown(names: tuple[str, ...], hosts: list[Host]) -> None:
    known = {n for h in hosts for n in (h.name, *(i.name for i in h.spec.instances))}
    for name in names:
        if not any(_any_matches((name,), host, i) for host in hosts for i in _instances(host)):
            hint = did_you_mean(name.split("/")[-1], known)
            raise CorralError(name, f"no such host or instance{hint}", "see inventories/")


def _gateways(
    names: tuple[str, ...], hosts: list[Host], planner: Planner
) -> dict[str, GatewayPlan]:
    """Plans of the gateways that are named, or of all."""
    if not any(host.spec.gateway and (not names or host.name in names) for host in hosts):
        return {}
    plans = planner.gateways(hosts)
    return {name: plan for name, plan in plans.items() if not names or name in names}


def _any_matches(names: tuple[str, ...], host: Host, instance: str) -> bool:
    return any(_matches(name, host, instance) for name in names)


def _instances(host: Host) -> list[str]:
    return [i.name for i in host.spec.instances] or [""]


def _matches(name: str, host: Host, instance: str) -> bool:
    return name in (host.name, instance, f"{host.name}/{instance}")
