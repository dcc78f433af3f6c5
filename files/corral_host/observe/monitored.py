"""Whether the planned monitoring is on this host. Changes nothing."""

import hashlib
import json
import os
from pathlib import Path

from corral_shared.pins import fits

from corral_host.system.apt import available, installed_version
from corral_host.system.commands import digest_or_none, show

# Written last; its content is the digest of the plan that was applied.
APPLIED = "monitoring.applied"
LINES = ("ActiveState", "UnitFileState")


def applied_path(paths):
    return Path(paths["state"]) / APPLIED


def monitoring_digest(plan):
    """The id of what is written and started; packages are compared by themselves."""
    parts = {"files": plan["files"], "units": list(plan["units"])}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def applied(paths):
    """Digest and file names of what was applied last; None if nothing is monitored here."""
    path = applied_path(paths)
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text())
    except ValueError:
        found = None
    # A damaged record still says that there is something to replace or to remove.
    return found if isinstance(found, dict) else {"digest": "", "files": [], "units": []}


def monitoring_state(plan, paths, missing_packages):
    """What is missing of the monitoring, and whether there is any that the plan does not have.

    ``programs``: pinned package -> the version that is there instead, and those that apt has.
    ``secrets``: path -> sha256 of each planned secret; None where it is missing or not private.
    """
    found = applied(paths)
    if plan is None:
        differs = ["no longer in the inventory"] if found else []
        return {"differs": differs, "missing_packages": [], "programs": {}, "secrets": {}}
    wrong = wrong_programs(plan.get("programs", ()))
    differs = [f"package {name}" for name in (*missing_packages, *wrong)]
    if (found or {}).get("digest") != monitoring_digest(plan):
        differs.append("its files and units are not applied")
    differs += [path for path, text in plan["files"].items() if text_at(path) != text]
    known = (found or {}).get("sha256", {})
    differs += [path for path in keyrings(plan) if digest_or_none(path) != known.get(path)]
    if not differs:
        differs += [unit for unit in plan["units"] if not runs(unit)]
    secrets = {path: private_digest(path) for path in plan.get("secrets", ())}
    return {
        "differs": differs, "missing_packages": missing_packages, "secrets": secrets,
        "programs": {
            name: {"installed": version, "offered": available(name)}
            for name, version in wrong.items()
        },
    }  # fmt: skip


def keyrings(plan):
    """Files with the keys of the repositories that are added for pinned programs."""
    return [one["keyring"] for one in plan.get("programs", ()) if one["key_url"]]


def wrong_programs(programs):
    """Package -> installed version, or None, of those that are not in their pinned version."""
    there = {one["package"]: installed_version(one["package"]) for one in programs}
    pinned = {one["package"]: one["version"] for one in programs}
    return {
        name: version
        for name, version in there.items()
        if version is None or not fits(version, pinned[name])
    }


def private_digest(path):
    """The sha256 of a file that root alone can read; None if it is not that."""
    try:
        found = os.stat(path)
        if found.st_mode & 0o077 or found.st_uid != os.geteuid():
            return None
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return None


def text_at(path):
    try:
        return Path(path).read_text()
    except (OSError, ValueError):
        return None


def runs(unit):
    now = show(unit, *LINES)
    return now.get("ActiveState") == "active" and now.get("UnitFileState") == "enabled"
