"""`corral plan`: the plan of a host, without contacting it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from pydantic import TypeAdapter

from corral.cli.documents import Document
from corral.cli.select import inventory_option, print_mistakes, print_replaced, select
from corral.cli.views.memory import memory_lines
from corral.engines.flags import refuse_unknown_flags
from corral.errors import CorralError
from corral.inventory.hosts import Host, HostSpec
from corral.plan.fleet import Build
from corral.plan.gateway import GatewayPlan
from corral.plan.host import HostPlan
from corral.plan.instance import InstancePlan
from corral.plan.monitoring import MonitoringPlan
from corral.planning.builders import differences
from corral.planning.fleet import FleetPlan
from corral.planning.gpus import gpu_memory_mib
from corral.planning.load import read_catalog
from corral.planning.memory_use import HostMemory, memory_use
from corral.project import project_root
from corral.store.engine_archives import ArchiveStore, archives_folder
from corral.terminal import echo

_PLAN = Document(
    "plan", TypeAdapter(HostPlan), "corral plan", about="All that a host will get, as planned."
)
_MEMORY = Document(
    "plan-memory",
    TypeAdapter(HostMemory),
    "corral plan",
    about="Memory of a host as planned; with --memory.",
)


@click.command()
@click.argument("host")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--memory", "memory_only", is_flag=True, help="Print the memory of its devices alone."
)
@inventory_option
def plan(host: str, as_json: bool, memory_only: bool, inventory: Path | None) -> None:
    """Print what HOST will get, without contacting it.

    Releases, shards, memory, units and command lines.
    """
    found = [fleet for fleet in select((host,), inventory) if host in fleet.names]
    if len(found) != 1:
        raise CorralError(host, f"{len(found)} hosts have this name", "add -i INVENTORY")
    fleet = found[0]
    catalog = read_catalog(project_root(), tolerant=True)
    print_replaced(catalog)
    planned = fleet.plan(host)
    _check_flags(fleet.host(host), planned)
    memory = memory_use(planned, gpu_memory_mib(fleet.host(host), catalog))
    if as_json:
        if memory_only:
            _MEMORY.show(memory)
        else:
            _PLAN.show(planned)
    elif memory_only:
        echo("\n".join(memory_lines(memory)))
    else:
        echo(describe(planned, fleet.builds, fleet.host(host).spec, memory))
    _print_unread(fleet)


def _print_unread(fleet: FleetPlan) -> None:
    """Print the mistakes of hosts that the plan does not include."""
    if names := ", ".join(fleet.unread):
        echo(f"builders and receivers of releases are shown without {names}:", err=True)
        print_mistakes(fleet.unread.values())


def _describe_monitoring(plan: MonitoringPlan) -> list[str]:
    pinned = [f"  {one.package} {one.version}, pinned in {one.catalog}" for one in plan.programs]
    units, packages = ", ".join(plan.units), ", ".join(plan.packages)
    return ["monitoring", f"  units {units}", f"  packages {packages}", *pinned]


def _check_flags(host: Host, plan: HostPlan) -> None:
    """Check command lines against the flags of built releases. Raises CorralError."""
    store = ArchiveStore(archives_folder(host))
    known = {release.key: store.find(release.engine, release.key) for release in plan.releases}
    for instance in plan.instances:
        if archive := known[instance.release]:
            refuse_unknown_flags(instance, archive.flags, where=host.name)


def describe(
    host_plan: HostPlan, fleet: Mapping[str, Build], spec: HostSpec, memory: HostMemory
) -> str:
    """The plan as text; ``fleet``: release key -> build."""
    overrides = {one.name: one.overrides for one in spec.instances}
    lines = [f"host {host_plan.host}"]
    if host_plan.releases:
        lines += ["", "engine releases"]
    for release in host_plan.releases:
        lines += [f"  {release.engine} {release.key}", f"    from {release.artifact.source_url}"]
        lines += [f"    into {release.folder}", f"    {release.artifact.summary}"]
        lines += [f"    {line}" for line in _describe_build(fleet[release.key], fleet)]
    if host_plan.shards:
        total_bytes = sum(shard.size_bytes for shard in host_plan.shards)
        lines += ["", f"shards, {total_bytes:,} bytes together"]
    for shard in host_plan.shards:
        lines += [f"  {shard.path}", f"    {shard.size_bytes:,} bytes, sha256 {shard.sha256}"]
    if host_plan.instances:
        lines += ["", *memory_lines(memory)]
    for instance in host_plan.instances:
        lines += ["", *_describe_instance(instance, overrides.get(instance.name, {}))]
    if host_plan.gateway:
        lines += ["", *_describe_gateway(host_plan.gateway)]
    if host_plan.monitoring:
        lines += ["", *_describe_monitoring(host_plan.monitoring)]
    return "\n".join(lines)


def _describe_gateway(gateway: GatewayPlan) -> list[str]:
    """The addresses of a gateway, and the servers behind each."""
    scheme = "https" if gateway.tls else "http"
    lines = [f"gateway, its configuration in {gateway.folder}/current"]
    for pool in gateway.pools:
        lines.append(f"  {pool.alias} on {scheme}, {gateway.address} port {pool.port}")
        for m in pool.members:
            lines.append(f"    {m.name} at {m.address} port {m.port}, weight {m.weight}")
        lines += [f"    not {reason}: out of its reach" for reason in pool.left_out]
    return lines


def _describe_build(build: Build, fleet: Mapping[str, Build]) -> list[str]:
    """The builder of a release, and why other hosts of the fleet have another release."""
    shipped = f", shipped to {', '.join(build.receivers)}" if build.receivers else ""
    lines = [f"built on {build.builder} ({build.because}){shipped}"]
    ours = build.release
    for other in fleet.values():
        theirs = other.release
        if theirs.engine == ours.engine and theirs.key != ours.key:
            differs = "; ".join(differences(ours, theirs))
            lines.append(f"{', '.join(other.users)}: {theirs.key}: {differs}")
    return lines


def _describe_instance(instance: InstancePlan, overrides: Mapping[str, Any]) -> list[str]:
    return [
        f"instance {instance.name}: {instance.model} {instance.quant}, profile {instance.profile}",
        *(f"  overrides   {key} = {json.dumps(value)}" for key, value in overrides.items()),
        f"  endpoint    {instance.endpoint.url} as {instance.alias}",
        f"  context     {instance.slots} x {instance.context_tokens_per_slot:,} tokens",
        f"  generation  {instance.generation}",
        f"  keys        {instance.key_path}",
        f"  {instance.unit_path}",
        *(f"    {line}".rstrip() for line in instance.unit_text.splitlines()),
    ]
