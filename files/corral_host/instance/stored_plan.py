"""The plan beside a generation (plan.json): as staged, or as last kept if it was ever kept.

The gate is not part of a generation's identity: the same generation may fail one gate and be kept
under another. A revert is proved against this plan, so only a kept plan may replace a kept one.
"""

import contextlib
import json
import time
from pathlib import Path

from corral_host.instance.gate_rows import gate_plan
from corral_host.system.commands import linked, point, read_json, write_atomic

NAME = "plan.json"
KEPT_AT = "kept_at"
# Links that activations move; plans of earlier versions do not say that they were kept.
KEPT_LINKS = ("current", "previous")
# A link to the generation that was staged last, until an activation ends; see is_next.
STAGED = "staged"
# Fields whose content is stored beside the plan, as a file.
FILES = ("reference_text",)


def plan_path(folder, generation):
    """``folder``: of the instance."""
    return Path(folder) / "generations" / generation / NAME


def stage_plan(instance):
    """Write the plan of a generation, unless it was kept: the gate it passed must not be lost."""
    path = plan_path(instance["folder"], instance["generation"])
    if not was_kept(instance):
        write_atomic(path, text_of(instance))


def is_staged(instance):
    """Whether its plan is stored: one that was kept, or one with the currently planned gate."""
    stored = read_json(plan_path(instance["folder"], instance["generation"]))
    if stored is None:
        return False
    return gate_plan(stored) == gate_plan(instance) or was_kept(instance)


def mark_staged(instance):
    """Note that a generation waits for its activation; the current one waits for none."""
    folder, generation = Path(instance["folder"]), instance["generation"]
    if linked(folder, "current") == generation:
        forget_staged(folder)
    else:
        point(folder / STAGED, f"generations/{generation}")


def forget_staged(folder):
    with contextlib.suppress(FileNotFoundError):
        (folder / STAGED).unlink()


def is_next(instance):
    """Whether the generation waits for its activation, or is current and no other one waits."""
    folder = Path(instance["folder"])
    waits = linked(folder, STAGED)
    return instance["generation"] == (waits or linked(folder, "current"))


def was_kept(instance):
    """Whether the generation passed a gate on this host."""
    folder, generation = Path(instance["folder"]), instance["generation"]
    stored = read_json(plan_path(folder, generation))
    if stored is None:
        return False
    return KEPT_AT in stored or any(linked(folder, name) == generation for name in KEPT_LINKS)


def changed_parts(instance):
    """Keys of the planned gate that differ from the gate with which the generation was kept last.

    They are no reason to restart it.
    """
    stored = read_json(plan_path(instance["folder"], instance["generation"]))
    if stored is None or not was_kept(instance):
        return []
    old, new = gate_plan(stored), gate_plan(instance)
    return sorted(key for key in new if old.get(key) != new[key])


def as_kept(instance):
    """Text of the plan of a generation that passed the gate of ``instance``."""
    stored = read_json(plan_path(instance["folder"], instance["generation"])) or {}
    before = {name: value for name, value in stored.items() if name not in FILES}
    return text_of({**before, **instance, KEPT_AT: time.time()})


def text_of(plan):
    return json.dumps(plan, indent=2, sort_keys=True) + "\n"
