"""From an inventory's host, the catalog and the lock to a HostPlan. Pure: no network, no host."""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from corral.catalog import Catalog, Profile
from corral.engines import llama_cpp
from corral.errors import CorralError
from corral.inventory import Host, InstanceSpec
from corral.lockfile import Lock, locked_engine, locked_shards, resolve_instance
from corral.plan import Endpoint, HostPlan, InstancePlan, ReleasePlan, ShardPlan
from corral.schema import Frozen
from corral.settings import HostPaths
from corral.unit import UnitValues, render_unit

GIB = 1024**3

# What a build needs beside the sources, and what fetches and proves the weights.
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
)
COMMANDS = ("apt-get", "dpkg-query", "journalctl", "systemctl", "systemd-run")

# Sources, object files and staging of one build; CUDA objects are the larger.
_SCRATCH_BYTES = {"cpu": 2 * GIB, "cuda": 8 * GIB}


class Planner(Frozen):
    """All that planning reads, gathered once."""

    catalog: Catalog
    lock: Lock
    paths: HostPaths
    templates: Path

    def plan_host(self, host: Host) -> HostPlan:
        """Decide everything for one host. Raises CorralError for what does not fit together."""
        releases: dict[str, ReleasePlan] = {}
        shards: dict[str, ShardPlan] = {}
        instances = []
        for spec in host.spec.instances:
            instance, release, weights = self._plan_instance(host, spec)
            releases[release.key] = release
            shards |= {shard.path: shard for shard in weights}
            instances.append(instance)
        return HostPlan(
            host=host.name,
            paths=self.paths,
            packages=PACKAGES,
            commands=_commands(releases.values()),
            gpus=host.spec.gpus,
            releases=tuple(releases.values()),
            shards=tuple(shards.values()),
            instances=tuple(instances),
        )

    def _plan_instance(
        self, host: Host, spec: InstanceSpec
    ) -> tuple[InstancePlan, ReleasePlan, list[ShardPlan]]:
        where = f"{host.name}/{spec.name}"
        engine, model, quant = resolve_instance(spec, self.catalog, where=where)
        profile = self.catalog.profile(spec.profile, where=where)
        release = self._plan_release(host, engine, where)
        shards = self._plan_shards(host, model, quant, where)
        self._refuse_long_context(profile, model, where)
        values = self._unit_values(host, spec, profile, model, release, shards[0], where)
        generation = self._generation(values, shards)
        plan = InstancePlan(
            name=spec.name,
            unit=_unit_name(spec),
            unit_path=f"{self.paths.units}/{_unit_name(spec)}",
            unit_text=self._render(values, generation),
            generation=generation,
            folder=f"{self.paths.instances}/{spec.name}",
            key_path=values.key_path,
            argv=values.argv,
            endpoint=values.endpoint,
            alias=profile.alias or model,
            profile=spec.profile,
            model=model,
            quant=quant,
            release=release.key,
            shards=tuple(shard.path for shard in shards),
            context_tokens_per_slot=profile.context_tokens_per_slot,
            slots=profile.slots,
            metrics=profile.metrics,
            keyed_routes=llama_cpp.keyed_routes(profile),
            # Also with a build for the CPU: where GPUs are, a server without VRAM is a finding.
            uses_gpu=host.spec.gpus is not None and profile.gpu_layers != 0,
            ready_timeout_seconds=profile.ready_timeout_seconds or _ready_timeout_seconds(shards),
        )
        return plan, release, shards

    def _unit_values(
        self,
        host: Host,
        spec: InstanceSpec,
        profile: Profile,
        model: str,
        release: ReleasePlan,
        first_shard: ShardPlan,
        where: str,
    ) -> UnitValues:
        endpoint = self._endpoint(spec, profile, where)
        on_gpu = release.backend == "cuda" and profile.gpu_layers != 0
        argv = llama_cpp.argv(
            profile,
            program=f"{release.folder}/bin/{llama_cpp.PROGRAM}",
            model=first_shard.path,
            alias=profile.alias or model,
            endpoint=endpoint,
            # Where LoadCredential= puts it: the specifier %d, written out.
            key_file=f"/run/credentials/{_unit_name(spec)}/api-keys",
            on_gpu=on_gpu,
        )
        return UnitValues(
            host=host.name,
            instance=spec.name,
            profile=spec.profile,
            argv=argv,
            key_path=f"{self.paths.keys}/{spec.name}",
            endpoint=endpoint,
            cuda_devices=host.spec.gpus.count if on_gpu and host.spec.gpus else 0,
            open_to_network=_open_to_network(endpoint),
        )

    def _generation(self, values: UnitValues, shards: list[ShardPlan]) -> str:
        """Sixteen hex digits over all that makes a server this one: its unit and its weights."""
        return _digest([self._render(values, ""), [shard.sha256 for shard in shards]])[:16]

    def _render(self, values: UnitValues, generation: str) -> str:
        return render_unit(values, generation=generation, templates=self.templates)

    def _plan_release(self, host: Host, name: str, where: str) -> ReleasePlan:
        engine = self.catalog.engines[name]
        locked = locked_engine(self.lock, self.catalog, name, where=where)
        backend = _backend(host, where)
        options = llama_cpp.cmake_options(
            engine, backend=backend, cuda_architectures=_cuda_architectures(host)
        )
        decides_bytes = [name, locked.commit, backend, options, sorted(engine.targets)]
        key = f"{locked.commit[:12]}-{backend}-{_digest(decides_bytes)[:8]}"
        return ReleasePlan(
            engine=name,
            key=key,
            commit=locked.commit,
            source_url=host.spec.engine_sources.get(name, engine.repository),
            backend=backend,
            cmake_options=tuple(options),
            targets=engine.targets,
            folder=f"{self.paths.engines}/{name}/{key}",
            scratch_bytes=_SCRATCH_BYTES[backend],
        )

    def _plan_shards(self, host: Host, model: str, quant: str, where: str) -> list[ShardPlan]:
        entry, files = locked_shards(self.lock, self.catalog, model, quant, where=where)
        hub = host.spec.hub_url.rstrip("/")
        return [
            ShardPlan(
                url=f"{hub}/{entry.repo}/resolve/{entry.revision}/{file.path}",
                revision=entry.revision,
                path=f"{self.paths.models}/{entry.repo}/{entry.revision}/{file.path}",
                size_bytes=file.size_bytes,
                sha256=file.sha256,
            )
            for file in files
        ]

    def _refuse_long_context(self, profile: Profile, model: str, where: str) -> None:
        trained = self.catalog.models[model].train_context_tokens
        asked = profile.context_tokens_per_slot
        if asked > trained:
            what = f"{asked} context tokens a slot, but {model} was trained on {trained}"
            raise CorralError(where, what, "lower context_tokens_per_slot in the profile")

    def _endpoint(self, spec: InstanceSpec, profile: Profile, where: str) -> Endpoint:
        if profile.listen == "unix":
            if spec.port is not None:
                what = f"profile {spec.profile} listens on a unix socket, port {spec.port} is given"
                raise CorralError(where, what, "remove the port, or choose another profile")
            return Endpoint(socket=f"{self.paths.sockets}/corral-{spec.name}/llama.sock")
        if spec.port is None:
            raise CorralError(where, "a port is missing", 'add "port": ... to the instance')
        return Endpoint(address=spec.address, port=spec.port)


def _unit_name(spec: InstanceSpec) -> str:
    return f"corral-{spec.name}.service"


def _ready_timeout_seconds(shards: list[ShardPlan]) -> int:
    """Five minutes, and twenty seconds for each GiB to be read."""
    return 300 + 20 * -(-sum(shard.size_bytes for shard in shards) // GIB)


def _commands(releases: Iterable[ReleasePlan]) -> tuple[str, ...]:
    """What must be on a host before anything is installed."""
    toolkit = ("nvcc",) if any(release.backend == "cuda" for release in releases) else ()
    return (*COMMANDS, *toolkit)


def _backend(host: Host, where: str) -> Literal["cpu", "cuda"]:
    backend = host.spec.backend or ("cuda" if host.spec.gpus else "cpu")
    if backend == "cuda" and host.spec.gpus is None:
        raise CorralError(
            where, "backend is cuda, but the host has no gpus", 'add "gpus" to the host'
        )
    return "cuda" if backend == "cuda" else "cpu"


def _cuda_architectures(host: Host) -> str | None:
    """``80`` for compute capability 8.0, as CMAKE_CUDA_ARCHITECTURES wants it."""
    return host.spec.gpus.compute_capability.replace(".", "") if host.spec.gpus else None


def _open_to_network(endpoint: Endpoint) -> bool:
    return endpoint.address is not None and not ipaddress.ip_address(endpoint.address).is_loopback


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
