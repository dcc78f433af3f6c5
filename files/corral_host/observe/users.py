"""Which files of weights the generations of this host need."""

from pathlib import Path

from corral_host.instance.stored_plan import KEPT_LINKS
from corral_host.release.releases import named_generations
from corral_host.system.commands import HostError, read_json


def users_of_generations(paths):
    """Path of a file -> ``INSTANCE (current)`` and so on, of all that needs it.

    Raises HostError for a plan that cannot be read: what it needs is not known then.
    """
    found = {}
    for instance in sorted(Path(paths["state"]).glob("instances/*")):
        for name, generation in needed_generations(instance):
            plan = read_json(generation / "plan.json")
            if not isinstance(plan, dict):
                raise HostError(
                    f"{generation}/plan.json is unreadable, so it is unknown what it needs",
                    "run a deploy, which writes it again, or remove that generation",
                )
            for path in plan.get("shards") or ():
                found.setdefault(path, []).append(f"{instance.name} ({name})")
    return found


def needed_generations(instance):
    """Name and folder of generations that may be started again, or wait for their activation."""
    named = named_generations(instance)
    # Both links of one generation say the same.
    order = {name: number for number, name in enumerate(KEPT_LINKS)}
    return sorted(named, key=lambda one: order.get(one[0], len(order)))
