"""The plan of a host, from inventory, catalog, lock and the headers of models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from corral_shared.names import quoted_path
from pydantic import ConfigDict, SkipValidation

from corral.catalog.entries import Catalog
from corral.catalog.inheritance import with_sources
from corral.engines import engine_module, resolve_placement
from corral.errors import CorralError
from corral.fit.host import Candidate, Placed, fit_host
from corral.fit.sources import AnyModel, HeaderSource, Weights, with_headers
from corral.inventory.hosts import Host
from corral.lock.lock_file import Lock, companions_of, locked_shards
from corral.lock.requirements import RequirementsFiles
from corral.nvidia.decision import gpu_setup
from corral.paths import HostPaths
from corral.plan.gateway import GatewayPlan
from corral.plan.host import HostPlan
from corral.plan.instance import Endpoint
from corral.plan.release import BUILD_PACKAGES, ReleasePlan
from corral.plan.weights import ShardPlan
from corral.planning.clients import InFront, nobody
from corral.planning.companions import with_companions
from corral.planning.gateways import gateways
from corral.planning.gpus import gpu_memory_mib, together, with_capability
from corral.planning.host_paths import host_paths
from corral.planning.instance import InstancePlanner
from corral.planning.memory import refuse_full_memory
from corral.planning.monitoring import monitoring_plan
from corral.planning.release import plan_release
from corral.planning.resolved import ResolvedInstance, resolve_spec
from corral.runtimes import runtime_of
from corral.schema import Frozen

# For fetching weights, for archives of releases, and for redirecting clients between servers.
COMMON_PACKAGES = ("aria2", "ca-certificates", "nftables", "zstd")
# Of a host whose releases are all built by cmake.
PACKAGES = tuple(sorted((*COMMON_PACKAGES, *BUILD_PACKAGES)))
GATEWAY_PACKAGES = ("haproxy", "nftables")
# Commands that a host must have before anything is installed.
COMMANDS = ("apt-get", "dpkg-query", "journalctl", "systemctl", "systemd-run")


class Planner(Frozen):
    """The inputs of planning; only ``headers`` may use the network."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    catalog: Catalog
    lock: Lock
    requirements: SkipValidation[RequirementsFiles]
    paths: HostPaths
    templates: Path
    headers: SkipValidation[HeaderSource]

    def plan_host(self, host: Host, in_front: InFront = nobody) -> HostPlan:
        """Plan one host; ``in_front``: the gateways of its instances.

        Raises CorralError for inconsistent or unknown inputs.
        """
        host = with_capability(host, self.catalog)
        resolved = [resolve_spec(host, spec, self.catalog) for spec in host.spec.instances]
        try:
            return self._plan(host, resolved, in_front)
        except CorralError as error:
            raise _with_sources(error, resolved) from error

    def _plan(
        self, host: Host, resolved_instances: list[ResolvedInstance], in_front: InFront
    ) -> HostPlan:
        releases: dict[str, ReleasePlan] = {}
        shards: dict[str, ShardPlan] = {}
        instances = []
        weights_of = {
            resolved.spec.name: self._plan_shards(resolved) for resolved in resolved_instances
        }
        placed = self._place(host, resolved_instances, weights_of)
        paths = host_paths(host, self.paths)
        planner = InstancePlanner(paths=paths, templates=self.templates, in_front=in_front)
        for resolved in resolved_instances:
            weights = weights_of[resolved.spec.name].shards
            release = self._plan_release(resolved, resolved_instances)
            releases[release.key] = release
            for shard in weights:
                # An engine that reads no header plans the same file without one.
                if shard.header or shard.path not in shards:
                    shards[shard.path] = shard
            instances.append(planner.plan(resolved, release, weights, placed[resolved.spec.name]))
        refuse_full_memory(host, instances)
        return HostPlan(
            host=host.name,
            platform=host.spec.platform,
            paths=paths,
            packages=packages(host, tuple(releases.values()), resolved_instances),
            commands=COMMANDS,
            memory_gib=host.spec.memory_gib,
            gpus=host.spec.gpus,
            gpu_setup=gpu_setup(host.spec, self.catalog, releases.values()),
            releases=tuple(releases.values()),
            shards=tuple(shards.values()),
            instances=tuple(instances),
            monitoring=monitoring_plan(host, paths, self.templates),
        )

    def plan_alone(self, host: Host, instance: str, in_front: InFront = nobody) -> HostPlan:
        """A host as if it had no other instance; see plan_host(). Raises CorralError."""
        kept = tuple(one for one in host.spec.instances if one.name == instance)
        spec = host.spec.model_copy(update={"instances": kept})
        return self.plan_host(host.model_copy(update={"spec": spec}), in_front)

    def argv_at(
        self, host: Host, plan: HostPlan, instance: str, *, endpoint: Endpoint, key_file: str
    ) -> tuple[str, ...]:
        """The command line of a planned instance at another endpoint, see InstancePlanner.

        + plan: of ``host``, which has the instance
        """
        host, planned = with_capability(host, self.catalog), plan.instance(instance)
        spec = next(one for one in host.spec.instances if one.name == instance)
        resolved = resolve_spec(host, spec, self.catalog)
        if planned is None:
            raise CorralError(f"{host.name}/{instance}", "is not planned", "name one that is")
        release = next(one for one in plan.releases if one.key == planned.release)
        paths = host_paths(host, self.paths)
        return InstancePlanner(paths=paths, templates=self.templates).argv_at(
            resolved,
            release,
            self._plan_shards(resolved).shards,
            planned.placement,
            endpoint=endpoint,
            key_file=key_file,
        )

    def model_of(self, host: Host, instance: str) -> AnyModel | None:
        """The model of an instance, from its headers; None where they are not known."""
        spec = next(one for one in host.spec.instances if one.name == instance)
        return self._plan_shards(resolve_spec(host, spec, self.catalog)).model

    def gateways(self, hosts: Sequence[Host]) -> dict[str, GatewayPlan]:
        """Host -> its gateway's plan, for all hosts of one inventory. Raises CorralError."""
        return gateways(hosts, self.catalog, self.paths)

    def releases(self, host: Host) -> tuple[ReleasePlan, ...]:
        """The engine releases of one host, without reading any header. Raises CorralError."""
        host = with_capability(host, self.catalog)
        resolved_instances = [
            resolve_spec(host, spec, self.catalog) for spec in host.spec.instances
        ]
        planned = [
            self._plan_release(resolved, resolved_instances) for resolved in resolved_instances
        ]
        return tuple({release.key: release for release in planned}.values())

    def _plan_release(
        self, resolved: ResolvedInstance, neighbours: list[ResolvedInstance]
    ) -> ReleasePlan:
        return plan_release(
            resolved, neighbours, self.catalog, self.lock, self.requirements, self.paths
        )

    def _place(
        self, host: Host, resolved_instances: list[ResolvedInstance], weights_of: dict[str, Weights]
    ) -> dict[str, Placed]:
        candidates = [
            Candidate(
                name=resolved.spec.name,
                label=resolved.label,
                kind=resolved.kind,
                profile=resolved.profile,
                placement=resolve_placement(resolved.profile, gpus=len(resolved.gpus)),
                gpus=resolved.gpus,
                model=weights_of[resolved.spec.name].model,
                unknown=weights_of[resolved.spec.name].unknown,
            )
            for resolved in resolved_instances
        ]
        if host.spec.gpus is None:
            return fit_host(host.name, candidates, memory_mib=None)
        kinds = {c.name: host.spec.gpus.kinds_of(c.gpus) for c in candidates}
        placed: dict[str, Placed] = {}
        # GPUs of one kind at a time, unless an instance has GPUs of several.
        for group in together(kinds.values()):
            members = [c for c in candidates if kinds[c.name] <= group and c.name not in placed]
            memory_mib = gpu_memory_mib(host, self.catalog, group or None)
            placed |= fit_host(host.name, members, memory_mib=memory_mib)
        return {candidate.name: placed[candidate.name] for candidate in candidates}

    def _plan_shards(self, resolved: ResolvedInstance) -> Weights:
        """Files of an instance: its model, a projector, a draft model and adapters."""
        own = self._weights(resolved, resolved.model, resolved.quant)
        pairs = companions_of(
            resolved.spec, self.catalog, where=resolved.where, inventory=resolved.host.origin
        )
        beside = [self._weights(resolved, *pair, is_own=False) for pair in pairs]
        drafts = 1 if resolved.profile.draft_model else 0
        return with_companions(own, beside[:drafts], beside[drafts:])

    def _weights(
        self, resolved: ResolvedInstance, model: str, quant: str, *, is_own: bool = True
    ) -> Weights:
        entry, files = locked_shards(
            self.lock, self.catalog, model, quant,
            where=resolved.where, inventory=resolved.host.origin,
        )  # fmt: skip
        if not (resolved.profile.vision and is_own):
            files = tuple(file for file in files if file.kind != "projector")
        elif not any(file.kind == "projector" for file in files):
            what = f"profile {resolved.spec.profile} has vision = true, but quant "
            what += f"{resolved.quant} of {resolved.model} has no projector"
            step = f"name its projector in catalog/models/{resolved.model}.toml, or remove vision"
            raise CorralError(resolved.where, what, step)
        hub = resolved.host.spec.weights_url
        models = host_paths(resolved.host, self.paths).models
        shards = [
            ShardPlan(
                url=f"{hub}/{entry.repo}/resolve/{entry.revision}/{quoted_path(file.path)}",
                revision=entry.revision,
                path=f"{models}/{entry.repo}/{entry.revision}/{file.path}",
                size_bytes=file.size_bytes,
                sha256=file.sha256,
                gated=self.catalog.models[model].needs_token(hub),
                kind=file.kind or "weights",
            )
            for file in files
        ]
        form = engine_module(resolved.kind).weights
        if form == "none":
            return Weights(tuple(shards), None, f"{resolved.kind} does not read GGUF")
        return with_headers(shards, self.headers, form)


def _with_sources(error: CorralError, among: Sequence[ResolvedInstance]) -> CorralError:
    """The error of an instance, with the sources of the keys that it names."""
    for resolved in among:
        if error.where == resolved.where or error.where.startswith(f"{resolved.where}:"):
            return with_sources(error, resolved.sourced)
    return error


def packages(
    host: Host, releases: Sequence[ReleasePlan], instances: Sequence[ResolvedInstance] = ()
) -> tuple[str, ...]:
    """Packages of a host: to make ``releases`` and to run them.

    A builder can build whatever is planned later. A gateway without instances serves nothing.
    """
    found = set(COMMON_PACKAGES)
    for release in releases:
        found |= {*release.artifact.packages, *engine_module(release.kind).packages}
    for resolved in instances:
        found |= {*runtime_of(resolved.runtime).packages}
    if host.spec.builder or not releases:
        found |= {*BUILD_PACKAGES}
    serves = bool(releases) or host.spec.builder
    if host.spec.gateway is None:
        return tuple(sorted(found))
    return tuple(dict.fromkeys([*(sorted(found) if serves else ()), *GATEWAY_PACKAGES]))
