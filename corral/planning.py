"""From an inventory's host, the catalog, the lock and the models' headers to a HostPlan."""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, SkipValidation

from corral.catalog import Catalog
from corral.engines import engine_module, resolve_placement
from corral.errors import CorralError
from corral.fit.host_fit import Candidate, Placed, fit_host
from corral.fit.planned import HeaderSource, Weights, with_headers
from corral.gate_planning import plan_gate
from corral.gateway.fleet import gateways
from corral.gateway.plan import GatewayPlan
from corral.gpu_host import gpu_setup
from corral.inventory import Host, InstanceSpec
from corral.lockfile import Lock, locked_shards
from corral.plan import (
    ActivationPlan,
    Endpoint,
    HostPlan,
    InstancePlan,
    ReleasePlan,
    ResolvedPlacement,
    ShardPlan,
)
from corral.releases import plan_release
from corral.requested import Requested, request
from corral.schema import Frozen
from corral.settings import HostPaths
from corral.spare import plan_spare
from corral.unit import UnitValues, render_unit

GIB = 1024**3

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
GATEWAY_PACKAGES = ("haproxy",)
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
        releases: dict[str, ReleasePlan] = {}
        shards: dict[str, ShardPlan] = {}
        instances = []
        requests = [request(host, spec, self.catalog) for spec in host.spec.instances]
        weights_of = {asked.spec.name: self._plan_shards(asked) for asked in requests}
        placed = self._place(host, requests, weights_of)
        for asked in requests:
            weights = weights_of[asked.spec.name].shards
            instance, release = self._plan_instance(
                asked, requests, weights, placed[asked.spec.name]
            )
            releases[release.key] = release
            shards |= {shard.path: shard for shard in weights}
            instances.append(instance)
        return HostPlan(
            host=host.name,
            platform=host.spec.platform,
            paths=self.paths,
            packages=_packages(host),
            commands=COMMANDS,
            gpus=host.spec.gpus,
            gpu_setup=gpu_setup(host.spec, self.catalog, releases.values()),
            releases=tuple(releases.values()),
            shards=tuple(shards.values()),
            instances=tuple(instances),
        )

    def gateways(self, hosts: Sequence[Host]) -> dict[str, GatewayPlan]:
        """Host -> what it serves for others, for all hosts of one inventory. Raises CorralError."""
        return gateways(hosts, self.catalog, self.paths)

    def releases(self, host: Host) -> tuple[ReleasePlan, ...]:
        """The engine releases of one host, without asking for any header. Raises CorralError."""
        requests = [request(host, spec, self.catalog) for spec in host.spec.instances]
        planned = [self._plan_release(asked, requests) for asked in requests]
        return tuple({release.key: release for release in planned}.values())

    def _plan_release(self, asked: Requested, neighbours: list[Requested]) -> ReleasePlan:
        return plan_release(asked, neighbours, self.catalog, self.lock, self.paths)

    def _plan_instance(
        self,
        asked: Requested,
        neighbours: list[Requested],
        shards: tuple[ShardPlan, ...],
        placed: Placed,
    ) -> tuple[InstancePlan, ReleasePlan]:
        profile, placement = asked.profile, placed.placement
        release = self._plan_release(asked, neighbours)
        generation = self._generation(asked, release, shards, placement)
        values = self._unit_values(asked, release, shards[0], placement, generation)
        plan = InstancePlan(
            name=asked.spec.name,
            unit=_unit_name(asked),
            unit_path=f"{self.paths.units}/{_unit_name(asked)}",
            unit_text=self._render(values, generation),
            generation=generation,
            folder=self._folder(asked),
            key_path=values.key_path,
            argv=values.argv,
            endpoint=values.endpoint,
            alias=profile.alias or asked.model,
            profile=asked.spec.profile,
            model=asked.model,
            quant=asked.quant,
            release=release.key,
            shards=tuple(shard.path for shard in shards),
            context_tokens_per_slot=profile.context_tokens_per_slot,
            slots=profile.slots,
            gpus=asked.gpus,
            placement=placement,
            need=placed.need,
            fit_argv=engine_module(asked.kind).fit_argv(
                profile,
                programs=f"{release.folder}/bin",
                model=shards[0].path,
                placement=placement,
            ),
            chat_template=asked.chat_template,
            chat_template_path=self._template_path(asked, generation),
            metrics=profile.metrics,
            keyed_routes=engine_module(asked.kind).keyed_routes(profile),
            uses_gpu=asked.wants_gpu,
            ready_timeout_seconds=profile.ready_timeout_seconds or _ready_timeout_seconds(shards),
            activation=self._activation(asked.spec, values, generation),
            gate=plan_gate(
                asked,
                release,
                model=shards[0].path,
                placement=placement,
                generation_folder=self._generation_folder(asked, generation),
            ),
            reference_text=asked.reference,
        )
        return plan, release

    def _activation(
        self, spec: InstanceSpec, values: UnitValues, generation: str
    ) -> ActivationPlan:
        return ActivationPlan(
            how=spec.activation,
            spare=plan_spare(
                values,
                port=spec.planned_spare_port,
                generation=generation,
                units=self.paths.units,
                templates=self.templates,
            ),
            drain_seconds=spec.drain_seconds,
            confirm_seconds=spec.confirm_seconds,
        )

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

    def _unit_values(
        self,
        asked: Requested,
        release: ReleasePlan,
        first_shard: ShardPlan,
        placement: ResolvedPlacement,
        generation: str,
    ) -> UnitValues:
        endpoint = self._endpoint(asked)
        module = engine_module(asked.kind)
        argv = module.argv(
            asked.profile,
            program=f"{release.folder}/bin/{module.PROGRAM}",
            model=first_shard.path,
            alias=asked.profile.alias or asked.model,
            endpoint=endpoint,
            # Where LoadCredential= puts it: the specifier %d, written out.
            key_file=f"/run/credentials/{_unit_name(asked)}/api-keys",
            placement=placement,
            chat_template_file=self._template_path(asked, generation),
        )
        return UnitValues(
            host=asked.host.name,
            instance=asked.spec.name,
            profile=asked.spec.profile,
            argv=argv,
            key_path=f"{self.paths.keys}/{asked.spec.name}",
            endpoint=endpoint,
            gpus=asked.gpus,
            host_gpus=asked.host.spec.gpus.count if asked.host.spec.gpus else 0,
            locks_memory="mlock" in asked.profile.load_mode,
            open_to_network=_open_to_network(endpoint),
        )

    def _generation(
        self,
        asked: Requested,
        release: ReleasePlan,
        shards: tuple[ShardPlan, ...],
        placement: ResolvedPlacement,
    ) -> str:
        """Sixteen hex digits over all that makes a server this one: unit, weights, template."""
        unnamed = self._render(self._unit_values(asked, release, shards[0], placement, ""), "")
        return _digest([unnamed, [shard.sha256 for shard in shards], asked.chat_template])[:16]

    def _folder(self, asked: Requested) -> str:
        return f"{self.paths.instances}/{asked.spec.name}"

    def _template_path(self, asked: Requested, generation: str) -> str | None:
        if asked.chat_template is None:
            return None
        return f"{self._generation_folder(asked, generation)}/chat-template.jinja"

    def _generation_folder(self, asked: Requested, generation: str) -> str:
        return f"{self._folder(asked)}/generations/{generation}"

    def _render(self, values: UnitValues, generation: str) -> str:
        return render_unit(values, generation=generation, templates=self.templates)

    def _plan_shards(self, asked: Requested) -> Weights:
        entry, files = locked_shards(
            self.lock, self.catalog, asked.model, asked.quant, where=asked.where
        )
        hub = asked.host.spec.hub_url.rstrip("/")
        shards = [
            ShardPlan(
                url=f"{hub}/{entry.repo}/resolve/{entry.revision}/{file.path}",
                revision=entry.revision,
                path=f"{self.paths.models}/{entry.repo}/{entry.revision}/{file.path}",
                size_bytes=file.size_bytes,
                sha256=file.sha256,
            )
            for file in files
        ]
        return with_headers(shards, self.headers)

    def _endpoint(self, asked: Requested) -> Endpoint:
        spec, where = asked.spec, asked.where
        if asked.profile.listen == "unix":
            if spec.port is not None:
                what = f"profile {spec.profile} listens on a unix socket, port {spec.port} is given"
                raise CorralError(where, what, "remove the port, or choose another profile")
            return Endpoint(socket=f"{self.paths.sockets}/corral-{spec.name}/llama.sock")
        if spec.port is None:
            raise CorralError(where, "a port is missing", 'add "port": ... to the instance')
        return Endpoint(address=spec.address, port=spec.port)


def _packages(host: Host) -> tuple[str, ...]:
    """A gateway without instances builds nothing."""
    if host.spec.gateway is None:
        return PACKAGES
    serves = bool(host.spec.instances) or host.spec.builder
    return (*(PACKAGES if serves else ()), *GATEWAY_PACKAGES)


def _unit_name(asked: Requested) -> str:
    return f"corral-{asked.spec.name}.service"


def _ready_timeout_seconds(shards: Sequence[ShardPlan]) -> int:
    """Five minutes, and twenty seconds for each GiB to be read."""
    return 300 + 20 * -(-sum(shard.size_bytes for shard in shards) // GIB)


def _open_to_network(endpoint: Endpoint) -> bool:
    return endpoint.address is not None and not ipaddress.ip_address(endpoint.address).is_loopback


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
