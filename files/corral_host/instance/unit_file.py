"""The unit file of an instance, and other files that its next start reads: as Corral wrote them.

A server that runs says nothing about them: it read them when it started.
"""

import re
from pathlib import Path

from corral_host.system.commands import digest_or_none, show

ENABLED = "enabled"


def installed_generation(unit_path):
    """The generation that systemd would start: the unit file itself says it."""
    try:
        text = Path(unit_path).read_text()
    except FileNotFoundError:
        return None
    found = re.search(r"^X-Corral-Generation=(\w+)$", text, re.MULTILINE)
    return found.group(1) if found else None


def edited_files(instance):
    """Files of the installed generation that somebody changed since they were written, sorted.

    The plan knows the digests of its own generation; of another one the staged unit is compared.
    """
    unit, folder = instance["unit_path"], Path(instance["folder"]) / "generations"
    installed = installed_generation(unit)
    planned = instance.get("file_sha256")
    if planned and installed == instance["generation"]:
        return sorted(path for path, digest in planned.items() if digest_or_none(path) != digest)
    if installed is None:
        return []
    staged = digest_or_none(folder / installed / "unit")
    return [] if staged == digest_or_none(unit) else [unit]


def is_staged_as_planned(instance):
    """Whether the planned generation's own files are what the plan says."""
    planned = instance.get("file_sha256") or {}
    staged = {path: digest for path, digest in planned.items() if path != instance["unit_path"]}
    return all(digest_or_none(path) == digest for path, digest in staged.items())


def unit_file_state(unit):
    """What systemd does with a unit at boot: enabled, disabled, masked, ..., empty for none."""
    return show(unit, "UnitFileState").get("UnitFileState", "")
