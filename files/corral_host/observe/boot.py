"""The kernel's command line: what a deploy saw of it, and what is different since.

Nothing of Corral sets it. An IOMMU, huge pages or isolated processors that were switched off decide
whether a host is as fast as when its servers were proved.
"""

import json
from collections import Counter
from pathlib import Path

from corral_host.system.commands import read_json, write_atomic
from corral_host.system.kernel import command_line
from corral_host.system.modes import open_folder

RECORD = "kernel.json"
# Each upgrade of the kernel changes these.
OF_A_KERNEL = ("BOOT_IMAGE=", "initrd=")


def record_path(paths):
    return Path(paths["state"]) / RECORD


def arguments():
    """The arguments of the running kernel, without those that name its own files."""
    return [one for one in command_line().split() if not one.startswith(OF_A_KERNEL)]


def recorded(paths):
    """The arguments that a deploy saw; None before the first."""
    found = read_json(record_path(paths))
    known = found.get("arguments") if isinstance(found, dict) else None
    is_known = isinstance(known, list) and all(isinstance(one, str) for one in known)
    return known if is_known else None


def is_recorded(paths):
    return recorded(paths) == arguments()


def record(plan):
    """Note the arguments of the running kernel. ``plan``: a HostPlan."""
    seen, path = arguments(), record_path(plan["paths"])
    # The first stage of a first deploy: nothing of Corral is there yet.
    open_folder(path.parent)
    write_atomic(path, json.dumps({"arguments": seen}) + "\n")
    return {"arguments": seen}


def changes(paths):
    """Arguments that are gone and that are new since the last deploy; empty before the first."""
    before = recorded(paths)
    if before is None:
        return [], []
    old, new = Counter(before), Counter(arguments())
    return list((old - new).elements()), list((new - old).elements())
