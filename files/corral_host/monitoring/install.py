"""Put the monitoring of this host in place: first its files, then, with the packages there, start.

A package starts its service when it is installed: the drop-in that keeps it from listening on all
addresses is there before.
"""

import json
from pathlib import Path

from corral_host.observe.monitored import applied, applied_path, monitoring_digest, text_at
from corral_host.system.commands import output, quiet, write_atomic


def write(document):
    """Write the files of ``monitoring``, and forget that it was applied. ``document``: a plan."""
    paths, plan = document["paths"], document["monitoring"]
    before = applied(paths) or {}
    both = {name: sorted({*before.get(name, ()), *plan[name]}) for name in ("files", "units")}
    note(paths, {"digest": "", **both})
    changed = [path for path, text in plan["files"].items() if text_at(path) != text]
    for path in changed:
        Path(path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_atomic(path, plan["files"][path])
    output("systemctl", "daemon-reload")
    return {"changed": changed}


def start(document):
    """Enable and restart the units of ``monitoring``, remove what it no longer has, and note it."""
    paths, plan = document["paths"], document["monitoring"]
    remove(paths, plan["files"], plan["units"])
    for unit in plan["units"]:
        output("systemctl", "enable", "--quiet", unit)
        output("systemctl", "restart", unit)
    digest = monitoring_digest(plan)
    note(paths, {"digest": digest, "files": sorted(plan["files"]), "units": list(plan["units"])})
    return {"started": list(plan["units"])}


def stop(document):
    """Remove what Corral put here for monitoring; packages of the distribution stay."""
    paths = document["paths"]
    removed = remove(paths, (), ())
    applied_path(paths).unlink(missing_ok=True)
    return {"removed": removed}


def remove(paths, but_files, but_units):
    found = applied(paths) or {"files": [], "units": []}
    units = [unit for unit in found["units"] if unit not in but_units]
    files = [path for path in found["files"] if path not in but_files]
    for unit in units:
        # Before its files: systemd would no longer know a unit without one.
        quiet("disable", "--now", unit)
    for path in files:
        Path(path).unlink(missing_ok=True)
    if units or files:
        output("systemctl", "daemon-reload")
    return files


def note(paths, record):
    path = applied_path(paths)
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    write_atomic(path, json.dumps(record) + "\n")
