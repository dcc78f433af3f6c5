"""Checks before any change. Pure: compares a plan with the state of its host."""

from __future__ import annotations

from collections.abc import Iterator

from corral.findings import Finding
from corral.host.state import HostState
from corral.nvidia.decision import decide
from corral.plan.host import HostPlan
from corral.plan.instance import InstancePlan
from corral.plan.weights import ShardPlan
from corral.preflight.gpus import bus_findings, gpu_findings
from corral.preflight.memory import fit_findings

SUPPORTED = {("debian", "12"), ("debian", "13"), ("ubuntu", "22.04"), ("ubuntu", "24.04")}
CLOCK_SKEW_SECONDS = 120
# Kept free beside what the deploy needs, so that a full disk does not stop the host itself.
RESERVE_BYTES = 1024**3
# What GGML_NATIVE=OFF builds still expect of an x86-64 processor.
CPU_FLAGS = frozenset({"avx", "avx2", "bmi2", "f16c", "fma"})


def preflight(
    plan: HostPlan,
    state: HostState,
    *,
    now_seconds: float,
    rollout: str | None = None,
    allow_reboot: bool = False,
    has_token: bool = False,
) -> list[Finding]:
    """All findings at once; go when none of them stops.

    + now_seconds: the controller's clock; + rollout: for which this is asked, if for one
    + allow_reboot: whether this run may reboot the host
    + has_token: whether the controller has one for gated models
    """
    commands = list(_commands(state))
    if not state.readable:
        unread = Finding(
            what="the host could not be read", next_step="see that /etc/os-release names its ID"
        )
        return commands or [unread]
    return [
        *_rollout(state, rollout),
        *_system(plan, state),
        *commands,
        *_clock(state, now_seconds),
        *_models_root(plan, state),
        *([] if has_token else _token(plan, state)),
        *_disk(plan, state),
        *_ports(plan, state),
        *_engine_config(state),
        *_drivers(plan, state, allow_reboot),
        *fit_findings(plan, state),
    ]


def _commands(state: HostState) -> Iterator[Finding]:
    for name in state.missing_commands:
        yield Finding(what=f"{name} is missing", next_step=f"install {name} on the host")


def _rollout(state: HostState, own: str | None) -> Iterator[Finding]:
    """What others stage while a rollout is at work would be switched to by it, or judged."""
    found = state.rollout
    if found and found.rollout != own:
        who, which = found.by or "somebody", found.rollout or "something"
        yield Finding(
            what=f"{who} is rolling out {which} on this host since {found.since or 'just now'}",
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
            what=f"the host is {found}, the inventory says platform = {plan.platform}",
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
            what=f"the clock is {skew:+d} s off this controller's",
            next_step="timedatectl set-ntp true (on the host; or fix the controller's clock)",
        )


def _models_root(plan: HostPlan, state: HostState) -> Iterator[Finding]:
    if plan.shards and (problem := state.models_root.problem):
        yield Finding(what=problem, next_step=f"{state.models_root.next_step} (on the host)")


def wants_token(plan: HostPlan, state: HostState) -> bool:
    """Whether a host lacks weights that the hub gives to known users only."""
    return any(shard.gated for shard in _missing_weights(plan, state))


def _token(plan: HostPlan, state: HostState) -> Iterator[Finding]:
    if wants_token(plan, state):
        yield Finding(
            what="a model of this host is gated, and there is no token here to fetch it with",
            next_step="set HF_TOKEN (or `hf auth login`), or hub_url to a mirror of yours",
        )


def _disk(plan: HostPlan, state: HostState) -> Iterator[Finding]:
    """What is missing, added up for each file system."""
    missing = [release for release in plan.releases if not state.releases[release.key]]
    wanted = {
        "engines": sum(r.installed_bytes for r in missing),
        "state": sum(r.scratch_bytes for r in missing),
        "models": _missing_weights_bytes(plan, state),
    }
    for device in sorted({found.device for found in state.filesystems.values()}):
        folders = [name for name in wanted if state.filesystems[name].device == device]
        needed = sum(wanted[name] for name in folders)
        free = state.filesystems[folders[0]].free_bytes
        free += state.models_root.unwanted_bytes if "models" in folders else 0
        if needed and free < needed + RESERVE_BYTES:
            # The models are below the state, unless they have a disk of their own.
            shown = [name for name in folders if name != "models" or "state" not in folders]
            paths = " and ".join(getattr(plan.paths, name) for name in shown)
            yield Finding(
                what=f"{paths}: {_gib(needed + RESERVE_BYTES)} needed, {_gib(free)} free",
                next_step=f"free space there, or mount a larger disk at {_larger(plan, folders)}",
            )


def _larger(plan: HostPlan, folders: list[str]) -> str:
    """Of the folders on a full disk, the one that needs most, or has the others below it."""
    found = next(name for name in ("state", "models", "engines") if name in folders)
    return str(getattr(plan.paths, found))


def _missing_weights_bytes(plan: HostPlan, state: HostState) -> int:
    """Weights that have not arrived yet; those of a disk that is gone are no new ones."""
    if state.models_root.problem:
        return 0
    missing = _missing_weights(plan, state)
    return sum(max(0, s.size_bytes - state.shards[s.path].staged_bytes) for s in missing)


def _missing_weights(plan: HostPlan, state: HostState) -> list[ShardPlan]:
    return [s for s in plan.shards if s.path in state.shards and not state.shards[s.path].proved]


def _ports(plan: HostPlan, state: HostState) -> Iterator[Finding]:
    for instance in plan.instances:
        holder = state.listeners.get(instance.endpoint.port or 0)
        if holder and holder.unit != instance.unit:
            who = holder.unit or f"{holder.program} (pid {holder.pid})"
            yield Finding(
                what=f"{instance.name}: port {instance.endpoint.port} is taken by {who}",
                next_step="stop it on the host, or give the instance another port",
            )
        yield from _spare_port(instance, state)
    for port in plan.gateway.ports if plan.gateway else ():
        holder = state.listeners.get(port)
        if holder and holder.unit != "haproxy.service":
            who = holder.unit or f"{holder.program} (pid {holder.pid})"
            yield Finding(
                what=f"gateway: port {port} is taken by {who}",
                next_step="stop it on the host, or give the gateway another port",
            )


def _spare_port(instance: InstancePlan, state: HostState) -> Iterator[Finding]:
    """Advice, as the instance can switch in place; unless the inventory wants side by side."""
    spare, how = instance.activation.spare, instance.activation.how
    holder = state.listeners.get(spare.endpoint.port or 0) if spare else None
    if spare and holder and holder.unit != spare.unit and how != "in-place":
        who = holder.unit or f"{holder.program} (pid {holder.pid})"
        yield Finding(
            what=f"{instance.name}: spare port {spare.endpoint.port} is taken by {who}",
            next_step='set "spare_port" of the instance, or "activation": "in-place"',
            stops=how == "side-by-side",
        )


def _engine_config(state: HostState) -> Iterator[Finding]:
    for path in state.engine_config_files:
        yield Finding(
            what=f"{path} exists and would change the flags of every server",
            next_step="move its settings into a profile, then remove it from the host",
        )


def _drivers(plan: HostPlan, state: HostState, allow_reboot: bool) -> Iterator[Finding]:
    """What a deploy cannot fix; nvidia-smi is listened to once its driver is the right one."""
    decision = decide(plan, state, allow_reboot=allow_reboot)
    yield from decision.findings
    if decision.driver_changes:
        yield from bus_findings(plan, state.gpu_host)
    elif not decision.findings:
        yield from gpu_findings(plan, state.gpu_host)


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 1024**3:.1f} GiB"
