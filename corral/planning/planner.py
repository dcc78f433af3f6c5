"""From an inventory's host, the catalog, the lock and the models' headers to a HostPlan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from corral_shared.names import quoted_path
from pydantic import ConfigDict, SkipValidation

from corral.catalog.entries import Catalog
from corral.engines import engine_module, resolve_placement
from corral.fit.host import Candidate, Placed, fit_host
from corral.fit.sources import HeaderSource, Weights, with_headers
from corral.inventory.hosts import Host
from corral.lock.lock_file import Lock, locked_shards
from corral.nvidia.decision import gpu_setup
from corral.paths import HostPaths
from corral.plan.gateway import GatewayPlan
from corral.plan.host import HostPlan
from corral.plan.release import ReleasePlan
from corral.plan.weights import ShardPlan
from corral.planning.gateways import gateways
from corral.planning.gpus import with_capability
from corral.planning.instance import InstancePlanner
from corral.planning.memory import refuse_full_memory
from corral.planning.release import plan_release
from corral.planning.request import Requested, request
from corral.schema import Frozen

# What a build needs beside the sources, what fetches and proves the weights, and what switches
# clients from one server to another.
PACKAGES = (
    "aria2",
    "ca-certificates",
    "ccache",
    "cmake",
    "g++",
    "gcc",
    "git",
    "libgomp1",
    "ninja-build",
    "nftables",
    "zstd",
)
GATEWAY_PACKAGES = ("haproxy", "nftables")
# What must be on a host before anything is installed.
COMMANDS = ("apt-get", "dpkg-query", "journalctl", "systemctl", "systemd-run")


class Planner(Frozen):
    """All that planning reads, gathered once; only ``headers`` may ask the network."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    catalog: Catalog
    lock: Lock
    paths: HostPaths
    templates: Path
    headers: SkipValidation[HeaderSource]

    def plan_host(self, host: Host) -> HostPlan:
        """Decide everything for one host. Raises CorralError for what does not fit together."""
        host = with_capability(host, self.catalog)
        releases: dict[str, ReleasePlan] = {}
        shards: dict[str, ShardPlan] = {}
        instances = []
        requests = [request(host, spec, self.catalog) for spec in host.spec.instances]
        weights_of = {asked.spec.name: self._plan_shards(asked) for asked in requests}
        placed = self._place(host, requests, weights_of)
        planner = InstancePlanner(paths=self.paths, templates=self.templates)
        for asked in requests:
            weights = weights_of[asked.spec.name].shards
            release = self._plan_release(asked, requests)
            releases[release.key] = release
            shards |= {shard.path: shard for shard in weights}
            instances.append(planner.plan(asked, release, weights, placed[asked.spec.name]))
        refuse_full_memory(host, instances)
        return HostPlan(
            host=host.name,
            platform=host.spec.platform,
            paths=self.paths,
            packages=_packages(host),
            commands=COMMANDS,
            memory_gib=host.spec.memory_gib,
            gpus=host.spec.gpus,
            gpu_setup=gpu_setup(host.spec, self.catalog, releases.values()),
            releases=tuple(releases.values()),
            shards=tuple(shards.values()),
            instances=tuple(instances),
        )

    def plan_alone(self, host: Host, instance: str) -> HostPlan:
        """A host as if it had no other instance. Raises CorralError."""
        kept = tuple(one for one in host.spec.instances if one.name == instance)
        spec = host.spec.model_copy(update={"instances": kept})
        return self.plan_host(host.model_copy(update={"spec": spec}))

    def gateways(self, hosts: Sequence[Host]) -> dict[str, GatewayPlan]:
        """Host -> what it serves for others, for all hosts of one inventory. Raises CorralError."""
        return gateways(hosts, self.catalog, self.paths)

    def releases(self, host: Host) -> tuple[ReleasePlan, ...]:
        """The engine releases of one host, without asking for any header. Raises CorralError."""
        host = with_capability(host, self.catalog)
        requests = [request(host, spec, self.catalog) for spec in host.spec.instances]
        planned = [self._plan_release(asked, requests) for asked in requests]
        return tuple({release.key: release for release in planned}.values())

    def _plan_release(self, asked: Requested, neighbours: list[Requested]) -> ReleasePlan:
        return plan_release(asked, neighbours, self.catalog, self.lock, self.paths)

    def _place(
        self, host: Host, requests: list[Requested], weights_of: dict[str, Weights]
    ) -> dict[str, Placed]:
        candidates = [
            Candidate(
                name=asked.spec.name,
                label=f"profile {asked.spec.profile}",
                kind=asked.kind,
                profile=asked.profile,
                placement=resolve_placement(asked.profile, gpus=len(asked.gpus)),
                gpus=asked.gpus,
                model=weights_of[asked.spec.name].model,
                unknown=weights_of[asked.spec.name].unknown,
            )
            for asked in requests
        ]
        return fit_host(host.name, candidates, memory_mib=self._gpu_memory_mib(host))

    def _gpu_memory_mib(self, host: Host) -> int | None:
        """Memory of each GPU: as the inventory says, else as the catalog knows its name."""
        if host.spec.gpus is None:
            return None
        known = (gpu for gpu in self.catalog.gpus.values() if gpu.is_called(host.spec.gpus.name))
        found = next(known, None)
        return host.spec.gpus.memory_mib or (found.memory_mib if found else None)

    def _plan_shards(self, asked: Requested) -> Weights:
        entry, files = locked_shards(
            self.lock, self.catalog, asked.model, asked.quant,
            where=asked.where, inventory=asked.host.origin,
        )  # fmt: skip
        hub = asked.host.spec.hub_url.rstrip("/")
        shards = [
            ShardPlan(
                url=f"{hub}/{entry.repo}/resolve/{entry.revision}/{quoted_path(file.path)}",
                revision=entry.revision,
                path=f"{self.paths.models}/{entry.repo}/{entry.revision}/{file.path}",
                size_bytes=file.size_bytes,
                sha256=file.sha256,
                gated=self.catalog.models[asked.model].needs_token(hub),
                kind=file.kind or "weights",
            )
            for file in files
        ]
        if not engine_module(asked.kind).reads_gguf:
            return Weights(tuple(shards), None, f"{asked.kind} reads no GGUF header")
        return with_headers(shards, self.headers)


def _packages(host: Host) -> tuple[str, ...]:
    """A gateway without instances builds nothing."""
    if host.spec.gateway is None:
        return PACKAGES
    serves = bool(host.spec.instances) or host.spec.builder
    return tuple(dict.fromkeys([*(PACKAGES if serves else ()), *GATEWAY_PACKAGES]))
