"""The checks of preflight, apart from GPUs and memory. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from corral.drift import fetch_bytes, moved_placement, to_fetch
from corral.findings import Finding
from corral.host.state import HostState, Listener
from corral.nvidia.decision import decide
from corral.paths import unit_name
from corral.plan.host import HostPlan
from corral.plan.instance import InstancePlan
from corral.preflight.containers import container_findings
from corral.preflight.gpus import bus_findings, gpu_findings
from corral.preflight.memory import fit_findings
from corral.preflight.monitoring import program_findings

SUPPORTED = {("debian", "12"), ("debian", "13"), ("ubuntu", "22.04"), ("ubuntu", "24.04")}
CLOCK_SKEW_SECONDS = 120
# Kept free beyond the need of the deploy, so that a full disk does not stop the host itself.
RESERVE_BYTES = 1024**3
# Features that builds with GGML_NATIVE=OFF still require of an x86-64 processor.
CPU_FLAGS = frozenset({"avx", "avx2", "bmi2", "f16c", "fma"})


def preflight(
    plan: HostPlan,
    state: HostState,
    *,
    now_seconds: float,
    rollout: str | None = None,
    allow_reboot: bool = False,
    has_token: bool = False,
    remove_orphans: bool = False,
    prunes: bool = False,
    has_bundle: bool = False,
) -> list[Finding]:
    """All findings; the deploy may start when none of them stops.

    + now_seconds: the controller's clock; + rollout: id of the rollout that deploys, if any
    + allow_reboot: whether this run may reboot the host
    + has_token: whether the controller has a token for gated models
    + prunes: whether this run removes weights that nobody needs before it fetches others
    + remove_orphans: whether this run removes instances that left the inventory
    + has_bundle: whether packages come from a bundle, and not from the host's own sources
    """
    commands = list(_commands(state))
    if not state.readable:
        unread = Finding(
            what="the host could not be read", next_step="check that /etc/os-release has an ID"
        )
        return commands or [unread]
    return [
        *_rollout(state, rollout),
        *_system(plan, state),
        *commands,
        *_clock(state, now_seconds),
        *_models_root(plan, state),
        *([] if has_token else _token(plan, state)),
        *_disk(plan, state, prunes=prunes),
        *_ports(plan, state, without=state.unplanned if remove_orphans else ()),
        *([] if remove_orphans else _orphans(plan, state)),
        *_moved(plan, state),
        *_engine_config(state),
        *_drivers(plan, state, allow_reboot),
        *container_findings(plan, state),
        *([] if has_bundle else program_findings(plan, state)),
        *fit_findings(plan, state),
    ]


def _commands(state: HostState) -> Iterator[Finding]:
    for name in state.missing_commands:
        yield Finding(what=f"{name} is missing", next_step=f"install {name} on the host")


def _rollout(state: HostState, own: str | None) -> Iterator[Finding]:
    """A running rollout would activate or gate the generations that this deploy stages."""
    running = state.rollout
    if running and running.rollout != own:
        by, which = running.by or "somebody", running.rollout or "something"
        yield Finding(
            what=f"{by} is rolling out {which} on this host since {running.since or 'just now'}",
            next_step="wait until that rollout ends, or end it, then run the same deploy again",
        )


def _system(plan: HostPlan, state: HostState) -> Iterator[Finding]:
    if (state.os_id, state.os_version) not in SUPPORTED:
        known = ", ".join(f"{name} {version}" for name, version in sorted(SUPPORTED))
        yield Finding(
            what=f"{state.os_id} {state.os_version} is not supported", next_step=f"use {known}"
        )
    elif (found := f"{state.os_id}-{state.os_version}") != plan.platform:
        yield Finding(
            what=f"the host is {found}, but the inventory has platform = {plan.platform}",
            next_step=f'set "platform": "{found}" in the data of the host',
        )
    if state.architecture != "x86_64":
        yield Finding(
            what=f"architecture {state.architecture} is not supported", next_step="use x86_64"
        )
    elif missing := CPU_FLAGS - set(state.cpu_flags):
        yield Finding(
            what=f"the processor lacks {', '.join(sorted(missing))}", next_step="use a newer one"
        )
    if not state.systemd:
        yield Finding(what="systemd is not running", next_step="boot the host with systemd")


def _clock(state: HostState, now_seconds: float) -> Iterator[Finding]:
    skew = round(state.time_seconds - now_seconds)
    if abs(skew) > CLOCK_SKEW_SECONDS:
        yield Finding(
            what=f"the clock differs from the controller's by {skew:+d} s",
            next_step="timedatectl set-ntp true (on the host; or fix the controller's clock)",
        )


def _models_root(plan: HostPlan, state: HostState) -> Iterator[Finding]:
    if plan.shards and (problem := state.models_root.problem):
        yield Finding(what=problem, next_step=f"{state.models_root.next_step} (on the host)")


def wants_token(plan: HostPlan, state: HostState) -> bool:
    """Whether a host lacks weights of a gated model."""
    return any(shard.gated for shard in to_fetch(plan, state))


def _token(plan: HostPlan, state: HostState) -> Iterator[Finding]:
    if wants_token(plan, state):
        yield Finding(
            what="a model of this host is gated, and the controller has no token to fetch it",
            next_step="set HF_TOKEN (or `hf auth login`), or set hub_url to a mirror of your own",
        )


def _disk(plan: HostPlan, state: HostState, *, prunes: bool) -> Iterator[Finding]:
    """Space for missing releases and weights, added up for each file system."""
    prunable = state.models_root.prunable_bytes
    missing = [release for release in plan.releases if not state.releases[release.key]]
    wanted = {
        "engines": sum(r.installed_bytes or state.site_images.get(r.key, 0) for r in missing),
        "state": sum(r.scratch_bytes for r in missing),
        "models": _missing_weights_bytes(plan, state),
    }
    for device in sorted({found.device for found in state.filesystems.values()}):
        folders = [name for name in wanted if state.filesystems[name].device == device]
        needed = sum(wanted[name] for name in folders)
        free = state.filesystems[folders[0]].free_bytes
        free += state.models_root.unwanted_bytes if "models" in folders else 0
        free += prunable if prunes and "models" in folders else 0
        if needed and free < needed + RESERVE_BYTES:
            # The folder of models is below that of the state, unless it has its own disk.
            shown = [name for name in folders if name != "models" or "state" not in folders]
            paths = " and ".join(getattr(plan.paths, name) for name in shown)
            yield Finding(
                what=f"{paths}: {_gib(needed + RESERVE_BYTES)} needed, {_gib(free)} free",
                next_step=_prune_first(plan, 0 if prunes or "models" not in folders else prunable)
                + f"free space there, or mount a larger disk at {_larger(plan, folders)}",
            )


def _prune_first(plan: HostPlan, prunable_bytes: int) -> str:
    """The command that removes weights which nobody needs, and what it frees; or ""."""
    if not prunable_bytes:
        return ""
    return f"`corral weights prune {plan.host}` frees {_gib(prunable_bytes)}; or "


def _larger(plan: HostPlan, folders: list[str]) -> str:
    """Of the folders on a full disk, the one that needs most, or has the others below it."""
    found = next(name for name in ("state", "models", "engines") if name in folders)
    return str(getattr(plan.paths, found))


def _missing_weights_bytes(plan: HostPlan, state: HostState) -> int:
    """Weights to fetch; 0 where their disk is missing, as they may be there."""
    if state.models_root.problem:
        return 0
    return fetch_bytes(plan, state)


def _orphans(plan: HostPlan, state: HostState) -> Iterator[Finding]:
    """Advice about instances that left the inventory: they serve on, with their old keys."""
    for name, found in state.unplanned.items():
        yield Finding(
            what=f"{name} is on this host and not in the inventory: {found.description}",
            next_step=f"`corral remove {plan.host}/{name}` removes it, as does this deploy with "
            "--data remove_orphans=true",
            stops=False,
        )


def _ports(plan: HostPlan, state: HostState, *, without: Collection[str] = ()) -> Iterator[Finding]:
    """Ports that others hold; ``without``: instances that are removed before they are needed."""
    gone = {unit_name(name) for name in without}
    for instance in plan.instances:
        holder = state.listeners.get(instance.endpoint.port or 0)
        if holder and holder.unit != instance.unit and holder.unit not in gone:
            user = holder.unit or f"{holder.program} (pid {holder.pid})"
            yield Finding(
                what=f"{instance.name}: port {instance.endpoint.port} is taken by {user}",
                next_step=_to_free(plan, state, holder)
                or "stop it on the host, or give the instance another port",
            )
        yield from _spare_port(instance, state)
    for port in plan.gateway.ports if plan.gateway else ():
        holder = state.listeners.get(port)
        if holder and holder.unit != "haproxy.service":
            user = holder.unit or f"{holder.program} (pid {holder.pid})"
            yield Finding(
                what=f"gateway: port {port} is taken by {user}",
                next_step="stop it on the host, or give the gateway another port",
            )


def _to_free(plan: HostPlan, state: HostState, holder: Listener) -> str:
    """How to free a port that an instance has which left the inventory; "" for another holder."""
    name = holder.unit.removeprefix("corral-").removesuffix(".service")
    if name not in state.unplanned or holder.unit != unit_name(name):
        return ""
    return f"`corral remove {plan.host}/{name}`, which left the inventory, then this deploy again"


def _spare_port(instance: InstancePlan, state: HostState) -> Iterator[Finding]:
    """Advice, since the instance can change in place; blocks where side-by-side is required."""
    spare, how = instance.activation.spare, instance.activation.how
    holder = state.listeners.get(spare.endpoint.port or 0) if spare else None
    if spare and holder and holder.unit != spare.unit and how != "in-place":
        user = holder.unit or f"{holder.program} (pid {holder.pid})"
        yield Finding(
            what=f"{instance.name}: spare port {spare.endpoint.port} is taken by {user}",
            next_step='set "spare_port" of the instance, or "activation": "in-place"',
            stops=how == "side-by-side",
        )


def _moved(plan: HostPlan, state: HostState) -> Iterator[Finding]:
    """Advice about automatic placements that other neighbours change."""
    for instance in plan.instances:
        found = state.instances.get(instance.name)
        old, new = found.replaced if found else {}, instance.model_dump(mode="json")
        if moved := moved_placement(old, new):
            yield Finding(
                what=f"{instance.name}: {moved.what}",
                next_step=f"to keep the old placement, {moved.keep}",
                stops=False,
            )


def _engine_config(state: HostState) -> Iterator[Finding]:
    for path in state.engine_config_files:
        yield Finding(
            what=f"{path} exists and would change the flags of every server",
            next_step="move its settings into a profile, then remove it from the host",
        )


def _drivers(plan: HostPlan, state: HostState, allow_reboot: bool) -> Iterator[Finding]:
    """Faults that a deploy cannot fix; nvidia-smi is used once the driver is the planned one."""
    decision = decide(plan, state, allow_reboot=allow_reboot)
    yield from decision.findings
    if decision.driver_changes:
        yield from bus_findings(plan, state.gpu_host)
    elif not decision.findings:
        yield from gpu_findings(plan, state.gpu_host)


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 1024**3:.1f} GiB"
