"""Whether an instance's unit file, and other files of its next start, are as Corral wrote them.

A running server proves nothing about them: it read them when it started.
"""

import re
from pathlib import Path

from corral_host.system.commands import digest_or_none, show

ENABLED = "enabled"


def installed_generation(unit_path):
    """The generation that systemd would start, by the unit file; None without a file."""
    try:
        text = Path(unit_path).read_text()
    except FileNotFoundError:
        return None
    found = re.search(r"^X-Corral-Generation=(\w+)$", text, re.MULTILINE)
    return found.group(1) if found else None


def edited_files(instance):
    """Files of the installed generation that were changed since Corral wrote them, sorted.

    The plan has the digests of its own generation; for another one the staged unit is compared.
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
    """What systemd does with a unit at boot: enabled, disabled, masked, ...; empty if unknown."""
    return show(unit, "UnitFileState").get("UnitFileState", "")
