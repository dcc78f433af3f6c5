"""Releases on this host, and their users. Changes nothing."""

import os
from pathlib import Path

from corral_host.plans.fields import release_folder
from corral_host.system.commands import HostError, read_json

MANIFEST = "manifest.json"
# What this host proved of a release. Not part of the release, as it differs from host to host.
RECEIPT = "installed.json"


def releases(paths):
    """Every release in the engines' folder, with its users, as rows."""
    used = users(paths)
    return [
        {
            "engine": folder.parent.name,
            "key": folder.name,
            "folder": str(folder),
            "size_bytes": size_of(folder),
            "installed_at": (read_json(folder / RECEIPT) or {}).get("installed_at"),
            "users": used.get(str(folder), []),
            "manifest": read_json(folder / MANIFEST),
        }
        for folder in release_folders(paths)
    ]


def release_folders(paths, hidden=False):
    """Folders of releases; the hidden ones are leftovers of killed jobs."""
    found = sorted(Path(paths["engines"]).glob("*/*"))
    return [f for f in found if f.is_dir() and f.name.startswith(".") == hidden]


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def users(paths):
    """Folder of a release -> its users: generations that would run from it, processes that do."""
    found = {}
    for folder, user in [*generations(paths), *processes()]:
        if Path(paths["engines"]) in folder.parents:
            found.setdefault(str(folder), []).append(user)
    return found


def generations(paths):
    """Release folder and name of each generation that a link or an unfinished activation uses."""
    for instance in sorted(Path(paths["state"]).glob("instances/*")):
        for name, generation in named_generations(instance):
            plan = read_json(generation / "plan.json")
            if plan is None:
                raise HostError(
                    f"{generation}/plan.json is unreadable, so it is unknown which release it uses",
                    "run a deploy, which writes it again, or remove that generation",
                )
            yield release_folder(plan), f"{instance.name} ({name})"


def named_generations(instance):
    folder = instance / "generations"
    links = [path for path in sorted(instance.iterdir()) if path.is_symlink()]
    named = [(link.name, instance / os.readlink(link)) for link in links]
    journal = read_json(instance / "activating.json") or {}
    named += [("activating", folder / journal[end]) for end in ("from", "to") if journal.get(end)]
    return [(name, path) for name, path in named if path.parent == folder and path.is_dir()]


def processes():
    """Folders whose ``bin`` has a running program, even if that was replaced."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            program = os.readlink(process / "exe")
        except OSError:
            # It ended meanwhile, or belongs to the kernel.
            continue
        # For a replaced program the kernel appends ``(deleted)`` to the name.
        yield Path(program).parent.parent, f"pid {process.name}"


def unused_releases(plan):
    planned = {release["folder"] for release in wanted(plan)}
    used = users(plan["paths"])
    return [f for f in release_folders(plan["paths"]) if str(f) not in {*planned, *used}]


def wanted(plan):
    return [*plan["releases"], *plan.get("builds", ())]
