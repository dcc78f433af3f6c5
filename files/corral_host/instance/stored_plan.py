"""The plan beside a generation (plan.json): as staged, and once it was kept, as it was kept last.

A gate is no part of a generation's identity: the same one may fail under one gate and be kept under
another. A revert is proved against what lies here, so that only a kept plan replaces a kept one.
"""

import json
import time
from pathlib import Path

from corral_host.instance.gate_rows import gate_plan
from corral_host.system.commands import read_json, write_atomic

NAME = "plan.json"
KEPT_AT = "kept_at"
# Links that activations move; plans of earlier versions do not say that they were kept.
KEPT_LINKS = ("current", "previous")
# What these hold lies beside the plan, as a file.
FILES = ("reference_text",)


def plan_path(folder, generation):
    """``folder``: of the instance."""
    return Path(folder) / "generations" / generation / NAME


def stage_plan(instance):
    """Of a generation that was never kept: no gate that it passed is lost."""
    path = plan_path(instance["folder"], instance["generation"])
    if not was_kept(instance):
        write_atomic(path, text_of(instance))


def is_staged(instance):
    """Whether its plan lies here: one that was kept, or one with the gate that is planned now."""
    stored = read_json(plan_path(instance["folder"], instance["generation"]))
    if stored is None:
        return False
    return gate_plan(stored) == gate_plan(instance) or was_kept(instance)


def was_kept(instance):
    """Whether it passed a gate that is known here."""
    folder, generation = Path(instance["folder"]), instance["generation"]
    stored = read_json(plan_path(folder, generation))
    if stored is None:
        return False
    links = (folder / name for name in KEPT_LINKS)
    return KEPT_AT in stored or any(
        link.is_symlink() and link.readlink().name == generation for link in links
    )


def changed_parts(instance):
    """Keys of the planned gate that the same generation, kept last, did not pass with yet.

    They are no reason to restart it.
    """
    stored = read_json(plan_path(instance["folder"], instance["generation"]))
    if stored is None or not was_kept(instance):
        return []
    old, new = gate_plan(stored), gate_plan(instance)
    return sorted(key for key in new if old.get(key) != new[key])


def as_kept(instance):
    """The text of the plan of a generation that passed the gate of ``instance``."""
    stored = read_json(plan_path(instance["folder"], instance["generation"])) or {}
    before = {name: value for name, value in stored.items() if name not in FILES}
    return text_of({**before, **instance, KEPT_AT: time.time()})


def text_of(plan):
    return json.dumps(plan, indent=2, sort_keys=True) + "\n"
