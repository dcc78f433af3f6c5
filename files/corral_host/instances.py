"""What an instance is on this host now: its unit, its generations, whether it serves."""

import os
import re
from pathlib import Path

from corral_host import unit_changes
from corral_host.gate_rows import gate_plan
from corral_host.held_keys import has_keys
from corral_host.stored_plan import is_staged
from corral_host.tools import digest_or_none, read_json, sha256_of, show

UNIT_PROPERTIES = ("ActiveState", "SubState", "MainPID", "NRestarts", "ActiveEnterTimestamp")


def instance_state(instance):
    folder = Path(instance["folder"])
    receipt = read_json(folder / "receipt.json") or {}
    unit = show(instance["unit"], *UNIT_PROPERTIES)
    return {
        "active": unit["ActiveState"],
        "sub": unit["SubState"],
        "pid": int(unit["MainPID"]),
        "restarts": int(unit["NRestarts"]),
        "since": unit["ActiveEnterTimestamp"],
        "installed_generation": installed_generation(instance["unit_path"]),
        "proved_generation": receipt.get("generation"),
        "key_sha256": private_digest(instance["key_path"]),
        "has_keys": has_keys(instance),
        "staged": generation_is_whole(folder / "generations" / instance["generation"], instance)
        and is_staged(instance),
        "serves": unit["ActiveState"] == "active"
        and is_in_order(instance, receipt, unit["MainPID"])
        and runs_as_planned(instance, unit["MainPID"]),
    }


def private_digest(path):
    """Digest of a key file; None where there is none, or where others could read it."""
    if not os.path.exists(path) or os.stat(path).st_mode & 0o077:
        return None
    return sha256_of(path)


def is_in_order(instance, receipt, pid):
    """Whether what runs is the planned generation, proved, and nothing changed under it since."""
    folder = Path(instance["folder"])
    planned = instance["generation"]
    return (
        receipt.get("generation") == planned == installed_generation(instance["unit_path"])
        and not (folder / "activating.json").exists()
        and not is_edited(instance["unit_path"], folder / "generations")
        and not runs_what_was_replaced(instance, pid)
    )


def runs_as_planned(instance, pid):
    try:
        return unit_changes.is_as_planned(instance, pid)
    except (FileNotFoundError, ProcessLookupError):
        # It ended meanwhile.
        return False


def installed_generation(unit_path):
    """The generation that systemd would start: the unit file itself says it."""
    try:
        text = Path(unit_path).read_text()
    except FileNotFoundError:
        return None
    found = re.search(r"^X-Corral-Generation=(\w+)$", text, re.MULTILINE)
    return found.group(1) if found else None


def runs_what_was_replaced(instance, pid):
    """Whether a server runs a program, or read keys, that were replaced since it started."""
    try:
        program = os.readlink(f"/proc/{pid}/exe")
        keys = digest_or_none(f"/proc/{pid}/root/run/credentials/{instance['unit']}/api-keys")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return program.endswith(" (deleted)") or keys != digest_or_none(instance["key_path"])


def is_edited(unit_path, generations):
    """Whether somebody changed the unit since it was installed from its generation."""
    installed = installed_generation(unit_path)
    if installed is None:
        return False
    staged = generations / installed / "unit"
    return not staged.exists() or staged.read_text() != Path(unit_path).read_text()


def generation_is_whole(folder, instance):
    text = folder / "unit"
    is_there = text.is_file() and installed_generation(text) == instance["generation"]
    # A text for the gate may come later: it makes no new generation.
    perplexity = gate_plan(instance)["perplexity"]
    return is_there and (not perplexity or os.path.exists(perplexity["text_path"]))
