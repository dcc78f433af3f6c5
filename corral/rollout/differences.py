"""What a deploy would change on hosts now: their plans compared with what they have. Reads only."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from corral.drift import fetch_bytes, waiting
from corral.errors import CorralError
from corral.gateway.change import change
from corral.host.answers import OBSERVED, STATE, ObservedInstance
from corral.host.state import HostState
from corral.inventory.hosts import Host
from corral.nvidia.decision import decide
from corral.plan.host import HostPlan
from corral.plan.instance import InstancePlan
from corral.plan.key_digest import state_question
from corral.planning.stored_plans import named_plan
from corral.project import helper_package, project_root, templates
from corral.remote.client import travelling_helper
from corral.remote.helper_archive import archive
from corral.remote.root import not_root
from corral.remote.run import on_all
from corral.rollout.activation import stored_plan
from corral.rollout.begin import Fleet
from corral.rollout.steps import changes, planned_how
from corral.schema import Frozen
from corral.store.api_keys import KeyFile, LostKeysError
from corral.store.engine_archives import ArchiveStore, archives_folder
from corral.store.scrape_secrets import changed_secrets, secret_texts

KeyOf = Callable[[Host, str], KeyFile]


class InstanceDiff(Frozen):
    """An instance that a deploy would activate again, or for the first time."""

    instance: str = Field(description="name of the instance")
    from_generation: str | None = Field(description="installed generation; null: none")
    to_generation: str = Field(description="planned generation")
    changes: tuple[str, ...] = Field(description="differences, one sentence each")
    how: str = Field(description="how it would be activated, by its plan")


class HostDiff(Frozen):
    """What a deploy would change on one host."""

    host: str = Field(description="name of the host")
    problem: str = Field(default="", description="why the host is not compared; empty: it is")
    packages: tuple[str, ...] = Field(default=(), description="packages to install")
    releases: tuple[str, ...] = Field(default=(), description="engine releases to install")
    files: int = Field(default=0, description="files of models to put in place")
    fetch_bytes: int = Field(
        default=0,
        description="bytes to fetch for them: none for what is on the host under another name",
    )
    keys: tuple[str, ...] = Field(default=(), description="instances whose key file changes")
    others: tuple[str, ...] = Field(default=(), description="other changes, one sentence each")
    instances: tuple[InstanceDiff, ...] = Field(default=(), description="instances that change")
    gateway: tuple[str, ...] = Field(default=(), description="changes of its gateway")

    @property
    def changes(self) -> bool:
        """Whether a deploy would change anything there."""
        parts = (self.packages, self.releases, self.files, self.keys, self.others, self.gateway)
        return any(parts) or bool(self.instances)


class FleetDiff(Frozen):
    """What a deploy would change now."""

    version: Literal[1] = 1
    hosts: tuple[HostDiff, ...] = Field(description="selected hosts, in the inventory's order")

    @property
    def exit_code(self) -> int:
        """0: no change, 2: some, 1: a host could not be compared."""
        if any(host.problem for host in self.hosts):
            return 1
        return 2 if any(host.changes for host in self.hosts) else 0


class PlannedWave(Frozen):
    """Hosts that change at the same time."""

    name: str = Field(description="such as wave 1")
    hosts: tuple[str, ...] = Field(description="hosts of the wave that change")


class RolloutForecast(Frozen):
    """What `corral rollout` would do now."""

    version: Literal[1] = 1
    hosts: tuple[HostDiff, ...] = Field(description="selected hosts, in the inventory's order")
    waves: tuple[PlannedWave, ...] = Field(description="waves, in order; none without a change")
    soak_seconds: int = Field(description="time that each wave must stay healthy")
    notes: tuple[str, ...] = Field(default=(), description="warnings, one sentence each")


class RevertStep(Frozen):
    """An instance that `corral revert` would switch."""

    name: str = Field(description="HOST/INSTANCE")
    problem: str = Field(default="", description="why it could not be reverted; empty: it could")
    from_generation: str | None = Field(default=None, description="installed generation")
    to_generation: str | None = Field(default=None, description="generation to switch to")
    changes: tuple[str, ...] = Field(default=(), description="differences, one sentence each")


class RevertForecast(Frozen):
    """What `corral revert` would do now, in its order."""

    version: Literal[1] = 1
    instances: tuple[RevertStep, ...] = Field(description="selected instances")
    gateways: tuple[str, ...] = Field(default=(), description="gateways that would be reverted")

    @property
    def exit_code(self) -> int:
        """0: no change, 2: some, 1: an instance could not be reverted."""
        if any(one.problem for one in self.instances):
            return 1
        changing = [one for one in self.instances if one.from_generation != one.to_generation]
        return 2 if changing or self.gateways else 0


def rollout_forecast(found: Fleet, soak_seconds: int | None) -> RolloutForecast:
    """What a rollout of a fleet would do now. Raises CorralError for impossible waves."""
    pairs = {host.name: (host, plan) for host, plan in (*found.selected_gateways, *found.pairs)}
    ordered = [pairs[host.name] for host in found.plan.everyone if host.name in pairs]
    hosts = on_all(lambda pair: host_diff(*pair, found.key_of, found.plan.everyone), ordered)
    changing = {one.host for one in hosts if one.instances}
    waves = found.plan.waves(changing) if changing else ()
    soak = found.plan.policy.soak_seconds if soak_seconds is None else soak_seconds
    return RolloutForecast(
        hosts=tuple(hosts),
        waves=tuple(PlannedWave(name=wave.name, hosts=tuple(wave.hosts)) for wave in waves),
        soak_seconds=soak,
        notes=tuple(note for wave in waves for note in wave.warnings),
    )


def revert_step(
    host: Host, instance: InstancePlan, installed: str | None, to: str | None
) -> RevertStep:
    """What a revert of an instance would change; ``to``: None for the previous generation.

    + instance: its installed plan, as far as it is readable
    """
    name, plan = f"{host.name}/{instance.name}", named_plan(host, [instance.name])
    try:
        kept = stored_plan(host, plan, instance.name, to)
    except CorralError as error:
        return RevertStep(name=name, problem=error.in_one_line)
    generation = str(kept.get("generation") or to)
    texts = changes(instance.model_dump(mode="json"), kept) if generation != installed else []
    return RevertStep(
        name=name, from_generation=installed, to_generation=generation, changes=tuple(texts)
    )


def host_diff(host: Host, plan: HostPlan, key_of: KeyOf, everyone: Sequence[Host] = ()) -> HostDiff:
    """Compare a host with its plan; a host that does not answer has a problem.

    + everyone: all hosts of its inventory, whose keys its Prometheus has
    """
    try:
        helper = travelling_helper(host)
        state = helper.ask(["state"], STATE, state_question(plan))
        if state.not_root:
            return HostDiff(host=host.name, problem=not_root(host, state.not_root).in_one_line)
        if not state.readable:
            step = "a deploy installs what its distribution has; then run the same command again"
            reason = f"it has no python3 for Corral's helper. Next: {step}"
            return HostDiff(host=host.name, problem=reason)
        keys = {one.name: _digest(host, one, state, key_of) for one in plan.instances}
        stored: Mapping[str, ObservedInstance] = {}
        if any(found.installed_generation for found in state.instances.values()):
            stored = helper.ask(["instances"], OBSERVED, plan.paths.model_dump_json()).instances
        gateway = _gateway(host, plan, state)
        secrets = tuple(_secrets(plan, state, everyone))
    except CorralError as error:
        return HostDiff(host=host.name, problem=error.in_one_line)
    kept = {name: one.plan for name, one in stored.items()}
    found = compared(plan, state, keys, kept, gateway)
    around = (*_around(host, plan, state), *secrets)
    return found.model_copy(update={"others": (*found.others, *around)})


def compared(
    plan: HostPlan,
    state: HostState,
    keys: Mapping[str, str | None],
    kept: Mapping[str, Mapping[str, Any]],
    gateway: Sequence[str] = (),
) -> HostDiff:
    """The difference of a plan from a host's state. Pure.

    + keys: instance -> digest of the store's key file; None where a deploy would make it
    + kept: instance -> document of its installed plan
    + gateway: changes of its gateway
    """
    missing = [one for one in plan.shards if not _is_proved(state, one.path)]
    digests = {name: digest for name, digest in keys.items() if digest is not None}
    due = waiting(plan, state, digests)
    return HostDiff(
        host=plan.host,
        packages=tuple(name for name in plan.packages if name in state.missing_packages),
        releases=tuple(
            f"{release.engine} {release.key}"
            for release in plan.releases
            if not state.releases.get(release.key)
        ),
        files=len(missing),
        fetch_bytes=fetch_bytes(plan, state),
        keys=tuple(i.name for i in plan.instances if _key_changes(i, state, keys)),
        others=tuple(_others(plan, state)),
        instances=tuple(_instance(one, state, kept.get(one.name, {})) for one in due),
        gateway=tuple(gateway),
    )


def _others(plan: HostPlan, state: HostState) -> Iterator[str]:
    """Sentences for the other stages of a deploy, as far as plan and state decide them."""
    if decide(plan, state, allow_reboot=False).prepares:
        yield "GPU driver and toolkit are prepared"
    if state.closed:
        yield f"modes are corrected: {', '.join(state.closed)}"
    if not state.kernel_recorded:
        yield "the kernel's command line is recorded"
    if _has_ports(plan) and not state.ports_reserved:
        yield "ports are reserved"
    if plan.instances and not state.watched:
        yield "the service that watches servers is installed"
    yield from (f"monitoring: {text}" for text in state.monitoring.differs)
    yield from (f"monitoring: package {one}" for one in state.monitoring.missing_packages)
    if state.unused_releases:
        yield f"unused engine releases are removed: {', '.join(state.unused_releases)}"


def _around(host: Host, plan: HostPlan, state: HostState) -> Iterator[str]:
    """Sentences for what the controller has: the helper, archives of releases, what may go."""
    if state.helper_sha256 != helper_sha256():
        yield "the host helper is replaced"
    own, store = {one.key for one in plan.releases}, ArchiveStore(archives_folder(host))
    for release in plan.builds:
        there = state.releases.get(release.key) or store.find(release.engine, release.key)
        if release.key not in own and not there:
            yield f"engine release {release.engine} {release.key} is built for other hosts"
    if host.spec.keep_weights == "referenced" and state.models_root.prunable_bytes:
        yield f"weights that nobody needs are removed: {state.models_root.prunable_bytes:,} bytes"


def _secrets(plan: HostPlan, state: HostState, everyone: Sequence[Host]) -> Iterator[str]:
    try:
        changed = changed_secrets(secret_texts(plan.monitoring, everyone), state.monitoring.secrets)
    except LostKeysError:
        changed = ("of hosts whose keys a deploy makes",)
    yield from (f"monitoring: secret {path}" for path in changed)


def helper_sha256() -> str:
    """The digest of the helper that a deploy would install."""
    return hashlib.sha256(archive(helper_package(project_root()))).hexdigest()


def _is_proved(state: HostState, path: str) -> bool:
    return path in state.shards and state.shards[path].proved


def _has_ports(plan: HostPlan) -> bool:
    return any(one.endpoint.port for one in plan.instances)


def _key_changes(instance: InstancePlan, state: HostState, keys: Mapping[str, str | None]) -> bool:
    found = state.instances.get(instance.name)
    return found is None or found.key_digest is None or found.key_digest != keys[instance.name]


def _instance(instance: InstancePlan, state: HostState, kept: Mapping[str, Any]) -> InstanceDiff:
    found = state.instances.get(instance.name)
    installed = found.installed_generation if found else None
    if installed is None:
        texts = ["new"]
    elif installed == instance.generation:
        texts = list(found.differs if found else ()) or ["its keys are to be replaced"]
    elif kept:
        texts = changes(dict(kept), instance.model_dump(mode="json"))
    else:
        texts = ["unknown: the old plan is not readable there"]
    return InstanceDiff(
        instance=instance.name,
        from_generation=installed,
        to_generation=instance.generation,
        changes=tuple(texts),
        how=planned_how(instance, installed),
    )


def _digest(host: Host, instance: InstancePlan, state: HostState, key_of: KeyOf) -> str | None:
    """The digest of the store's keys; None for those that a deploy would make.

    Raises LostKeysError where the host has keys and the store does not.
    """
    try:
        return key_of(host, instance.name).digest
    except LostKeysError:
        found = state.instances.get(instance.name)
        if found and found.has_keys:
            raise
        return None


def _gateway(host: Host, plan: HostPlan, state: HostState) -> tuple[str, ...]:
    """Changes of a gateway once all its servers serve their plan. Raises CorralError."""
    if plan.gateway is None:
        return ()
    if state.gateway is None or state.gateway.installed is None:
        return ("new",)
    found = change(
        host, plan.gateway, lambda _: True, paths=plan.paths, templates=templates(project_root())
    )
    return found.changes if found else ()
