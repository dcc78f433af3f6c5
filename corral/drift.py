"""Drift: the parts of a plan that a host does not have, or does not serve yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from corral.host.state import HostState
from corral.plan.host import HostPlan
from corral.plan.instance import InstancePlan
from corral.plan.placement import ResolvedPlacement
from corral.plan.weights import ShardPlan
from corral.schema import Frozen


class Moved(Frozen):
    """An automatic placement that other neighbours change; ``keep``: keys that keep the old one."""

    what: str
    keep: str

    @property
    def text(self) -> str:
        """As one sentence."""
        return f"{self.what}; to keep the old placement, {self.keep}"


def moved_placement(old: Mapping[str, Any], new: Mapping[str, Any]) -> Moved | None:
    """How an automatic placement changes between two plans of an instance, JSON documents.

    None where other weights or settings are a reason for it. Plans of earlier versions have no
    settings.
    """
    settings = old.get("settings"), new.get("settings")
    is_auto = settings[0] == settings[1] and (settings[1] or {}).get("placement") == "auto"
    same = is_auto and old.get("shards") == new.get("shards")
    if not same or old.get("placement") == new.get("placement"):
        return None
    try:
        was, will = (ResolvedPlacement.model_validate(one.get("placement")) for one in (old, new))
    except ValidationError:
        return None
    return Moved(
        what=f'placement = "auto" beside other neighbours: {was.summary} -> {will.summary}',
        keep=f'add "overrides": {was.as_keys} to the instance',
    )


def serves(plan: InstancePlan, state: HostState, key_digest: str | None) -> bool:
    """Whether the planned generation runs, has passed its gate, and uses these keys.

    Its release must be complete on the host, too.
    """
    found = state.instances.get(plan.name)
    # A release that this run rebuilds replaces the program under its running servers.
    built = state.releases.get(plan.release, False)
    if key_digest is None or found is None:
        return False
    return built and found.serves and found.key_digest == key_digest


def waiting(
    plan: HostPlan, state: HostState, key_digest: Mapping[str, str]
) -> tuple[InstancePlan, ...]:
    """Instances that do not serve their planned generation with their current keys.

    + key_digest: instance -> digest of its key file; an instance without one is waiting
    """
    return tuple(i for i in plan.instances if not serves(i, state, key_digest.get(i.name)))


def to_fetch(plan: HostPlan, state: HostState) -> list[ShardPlan]:
    """Missing weights whose bytes are nowhere on the host, each once: other names become links."""
    first: dict[str, ShardPlan] = {}
    for shard in plan.shards:
        found = state.shards.get(shard.path)
        if found is None or not (found.proved or found.here):
            first.setdefault(shard.sha256, shard)
    return list(first.values())


def fetch_bytes(plan: HostPlan, state: HostState) -> int:
    """Bytes of them that have not arrived yet."""
    return sum(max(0, s.size_bytes - _arrived_bytes(state, s)) for s in to_fetch(plan, state))


def _arrived_bytes(state: HostState, shard: ShardPlan) -> int:
    found = state.shards.get(shard.path)
    return found.staged_bytes if found else 0


def unstaged(plan: HostPlan, state: HostState, key_digest: Mapping[str, str]) -> list[str]:
    """One sentence for each part of a plan that is not on the host; empty once all is staged."""
    missing = [
        f"release {r.key} is missing" for r in plan.releases if not state.releases.get(r.key)
    ]
    proved = {path for path, shard in state.shards.items() if shard.proved}
    missing += [f"{s.path} is not verified" for s in plan.shards if s.path not in proved]
    for instance in plan.instances:
        found = state.instances.get(instance.name)
        if found is None or not found.staged:
            missing.append(f"{instance.name}: generation {instance.generation} is not staged")
        elif found.key_digest != key_digest[instance.name]:
            missing.append(f"{instance.name}: its key file is not current")
    return missing
