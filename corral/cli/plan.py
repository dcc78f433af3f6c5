"""`corral plan`: what a host will get, without asking anybody."""

from __future__ import annotations

from pathlib import Path

import click

from corral.cli.select import inventory_option, select
from corral.errors import CorralError
from corral.plan import HostPlan, InstancePlan


@click.command()
@click.argument("host")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@inventory_option
def plan(host: str, as_json: bool, inventory: Path | None) -> None:
    """Print what HOST will get: releases, shards, units and command lines."""
    found = [p for h, p in select((host,), inventory) if h.name == host]
    if len(found) != 1:
        raise CorralError(host, f"{len(found)} hosts are called so", "give -i INVENTORY")
    click.echo(found[0].model_dump_json(indent=2) if as_json else describe(found[0]))


def describe(host_plan: HostPlan) -> str:
    """The plan as a page for people."""
    lines = [f"host {host_plan.host}", "", "engine releases"]
    for release in host_plan.releases:
        lines += [f"  {release.engine} {release.key}", f"    from {release.source_url}"]
        lines += [f"    into {release.folder}", f"    cmake {' '.join(release.cmake_options)}"]
    total_bytes = sum(shard.size_bytes for shard in host_plan.shards)
    lines += ["", f"shards, {total_bytes:,} bytes together"]
    for shard in host_plan.shards:
        lines += [f"  {shard.path}", f"    {shard.size_bytes:,} bytes, sha256 {shard.sha256}"]
    for instance in host_plan.instances:
        lines += ["", *_describe_instance(instance)]
    return "\n".join(lines)


def _describe_instance(instance: InstancePlan) -> list[str]:
    return [
        f"instance {instance.name}: {instance.model} {instance.quant}, profile {instance.profile}",
        f"  endpoint    {instance.endpoint.url} as {instance.alias}",
        f"  context     {instance.slots} x {instance.context_tokens_per_slot:,} tokens",
        f"  generation  {instance.generation}",
        f"  keys        {instance.key_path}",
        f"  {instance.unit_path}",
        *(f"    {line}".rstrip() for line in instance.unit_text.splitlines()),
    ]
