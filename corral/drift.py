"""What of a plan is not on a host yet, and what does not serve yet."""

from __future__ import annotations

from collections.abc import Mapping

from corral.host.state import HostState
from corral.plan.host import HostPlan
from corral.plan.instance import InstancePlan


def serves(plan: InstancePlan, state: HostState, key_sha256: str | None) -> bool:
    """Whether the planned generation runs, proved, with these keys and a whole release."""
    found = state.instances.get(plan.name)
    # A release that is built again in this run replaces the program under its servers.
    built = state.releases.get(plan.release, False)
    if key_sha256 is None or found is None:
        return False
    return built and found.serves and found.key_sha256 == key_sha256


def waiting(
    plan: HostPlan, state: HostState, key_sha256: Mapping[str, str]
) -> tuple[InstancePlan, ...]:
    """Instances that do not serve their planned generation with their current keys.

    + key_sha256: of the key file of each instance, by its name; where it is not known, it waits
    """
    return tuple(i for i in plan.instances if not serves(i, state, key_sha256.get(i.name)))


def unstaged(plan: HostPlan, state: HostState, key_sha256: Mapping[str, str]) -> list[str]:
    """A sentence for each thing of a plan that is not on the host; empty once all is staged."""
    told = [f"release {r.key} is missing" for r in plan.releases if not state.releases.get(r.key)]
    proved = {path for path, shard in state.shards.items() if shard.proved}
    told += [f"{s.path} is not proved" for s in plan.shards if s.path not in proved]
    for instance in plan.instances:
        found = state.instances.get(instance.name)
        if found is None or not found.staged:
            told.append(f"{instance.name}: generation {instance.generation} is not staged")
        elif found.key_sha256 != key_sha256[instance.name]:
            told.append(f"{instance.name}: its key file is not current")
    return told
