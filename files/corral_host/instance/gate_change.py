"""What a planned gate asks for that the same generation did not pass yet: no reason to restart."""

from corral_host.instance.gate_rows import gate_plan
from corral_host.instance.stored_plan import plan_path, was_kept
from corral_host.system.commands import read_json


def changed_parts(instance):
    """Keys of the gate that are another than when the planned generation was kept last."""
    stored = read_json(plan_path(instance["folder"], instance["generation"]))
    if stored is None or not was_kept(instance):
        return []
    old, new = gate_plan(stored), gate_plan(instance)
    return sorted(key for key in new if old.get(key) != new[key])
