"""State of an instance on this host: its unit, its generations, whether it serves as planned."""

import os
from pathlib import Path

from corral_host import runtimes
from corral_host.instance import unit_changes
from corral_host.instance.gate_rows import gate_plan
from corral_host.instance.stored_plan import changed_parts, is_next, is_staged, plan_path
from corral_host.instance.unit_file import (
    ENABLED,
    edited_files,
    installed_generation,
    is_staged_as_planned,
)
from corral_host.server import staged_keys
from corral_host.server.held_keys import has_keys
from corral_host.server.key_digest import private_digest
from corral_host.system.commands import digest_or_none, read_json, show

UNIT_PROPERTIES = (
    "ActiveState", "SubState", "MainPID", "NRestarts", "ActiveEnterTimestamp", "UnitFileState",
)  # fmt: skip
# Parts of a plan: the placement, and what it is decided from beside the GPUs.
PLACING = ("settings", "shards", "placement")
# Differences between a plan and an instance, as shown to people.
DOWN = "it does not run"
OTHER = "another generation is installed or proved"
UNFINISHED = "an activation of it is unfinished"
EDITED = "its unit file, or a file that it names, was edited"
DISABLED = "it is not enabled"
PROGRAM = "its program was replaced since it started"
GATE = "its gate changed"
# llama.cpp and ik_llama.cpp read their key file once, when they parse their arguments.
KEYS = "its keys were replaced since it started"
NEW_KEYS = "its keys are to be replaced"


def instance_state(instance, *, rekeyed=True, digest_key=None):
    """State of an instance.

    ``rekeyed``: whether staged keys count as part of the plan. ``digest_key``: see key_digest.py.
    """
    folder = Path(instance["folder"])
    receipt = read_json(folder / "receipt.json") or {}
    unit = show(instance["unit"], *UNIT_PROPERTIES)
    differs = [*differences(instance, receipt, unit), *of_process(instance, unit)]
    if not rekeyed:
        differs = [what for what in differs if what != NEW_KEYS]
    return {
        "active": unit["ActiveState"],
        "sub": unit["SubState"],
        "pid": int(unit["MainPID"]),
        "restarts": int(unit["NRestarts"]),
        "since": unit["ActiveEnterTimestamp"],
        "installed_generation": installed_generation(instance["unit_path"]),
        "proved_generation": receipt.get("generation"),
        "key_digest": private_digest(staged_keys.due_path(instance["key_path"]), digest_key),
        "has_keys": has_keys(instance),
        "staged": generation_is_whole(folder / "generations" / instance["generation"], instance)
        and is_staged(instance)
        and is_next(instance),
        "replaced": replaced_plan(instance),
        "differs": differs,
        "serves": not differs,
    }


def replaced_plan(instance):
    """What decides the placement of the installed generation, if another one is planned."""
    found = installed_generation(instance["unit_path"])
    if found in (None, instance["generation"]):
        return {}
    stored = read_json(plan_path(instance["folder"], found)) or {}
    return {key: stored[key] for key in PLACING if key in stored}


def differences(instance, receipt, unit):
    """Differences of files on disk and of systemd's state from the plan."""
    folder, planned = Path(instance["folder"]), instance["generation"]
    installed = installed_generation(instance["unit_path"])
    found = {
        DOWN: unit["ActiveState"] != "active",
        OTHER: not receipt.get("generation") == planned == installed,
        UNFINISHED: (folder / "activating.json").exists(),
        EDITED: edited_files(instance),
        DISABLED: unit["UnitFileState"] != ENABLED,
        GATE: receipt.get("generation") == planned and changed_parts(instance),
    }
    return [what for what, differs in found.items() if differs]


def of_process(instance, unit):
    """Differences of the running server from what a start would run now; none if it is down."""
    if unit["ActiveState"] != "active":
        return []
    try:
        server = runtimes.of(instance).server_pid(instance, unit["MainPID"])
        return [
            *replaced(instance, unit["MainPID"]),
            *unit_changes.differences(instance, server),
        ]
    except (FileNotFoundError, ProcessLookupError):
        return [DOWN]


def replaced(instance, pid):
    """Which of the program and the keys of a server were replaced since it started."""
    path = instance["key_path"]
    keys = digest_or_none(f"/proc/{pid}/root/run/credentials/{instance['unit']}/api-keys")
    found = {
        PROGRAM: runtimes.of(instance).is_replaced(instance, pid),
        KEYS: keys != digest_or_none(path),
        NEW_KEYS: staged_keys.waits(path) and keys != digest_or_none(staged_keys.staged_path(path)),
    }
    return [what for what, differs in found.items() if differs]


def generation_is_whole(folder, instance):
    text = folder / "unit"
    is_there = (
        text.is_file()
        and installed_generation(text) == instance["generation"]
        and is_staged_as_planned(instance)
    )
    # The gate's text may change later: that makes no new generation.
    perplexity = gate_plan(instance)["perplexity"]
    return is_there and (not perplexity or os.path.exists(perplexity["text_path"]))
