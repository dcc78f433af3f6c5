"""Modes of what servers read; each server runs as a user of its own.

Modes are set, never inherited: a root whose umask hides everything makes the same host.
"""

import os
import stat
from pathlib import Path

UMASK = 0o022
FOLDER = PROGRAM = 0o755
FILE = 0o644
EVERYBODY = 0o005
# Folders of a release whose files are executed or loaded.
RUN = ("bin", "lib")
OWN = "corral"


def open_folder(path):
    """Make a folder and its missing parents, readable by everybody."""
    missing = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        folder.chmod(FOLDER)


def open_release(folder):
    """Make each file and folder of a release readable: other users run it from here on."""
    for path, mode in release_modes(folder):
        path.chmod(mode)


def release_modes(folder):
    yield folder, FOLDER
    for path in (one for one in folder.rglob("*") if not one.is_symlink()):
        runs = path.relative_to(folder).parts[0] in RUN
        yield path, FOLDER if path.is_dir() else PROGRAM if runs else FILE


def closed(plan):
    """Paths of a plan that exist and that other users cannot read. Changes nothing."""
    return [str(path) for path, mode in wanted(plan).items() if is_closed(path, mode)]


def heal(plan):
    """Make those paths readable by everybody; returns them."""
    found = [(path, mode) for path, mode in wanted(plan).items() if is_closed(path, mode)]
    for path, mode in found:
        path.chmod(stat.S_IMODE(path.stat().st_mode) | mode)
    return [str(path) for path, _ in found]


def is_closed(path, mode):
    needed = mode & EVERYBODY
    return path.exists() and path.stat().st_mode & needed != needed


def wanted(plan):
    """Path -> mode of all that servers of a plan read; paths need not exist yet."""
    paths, found = plan["paths"], {}
    engines, state = Path(paths["engines"]), Path(paths["state"])
    for release in [*plan["releases"], *plan.get("builds", ())]:
        found.update(folders_above(release["folder"], engines))
        found.update(release_modes(Path(release["folder"])))
    models = Path(paths.get("models_folder") or state)
    for root, files in ((models, shards(plan)), (state, texts(plan))):
        for path in filter(None, files):
            found.update({**folders_above(path, root), Path(path): FILE})
    for instance in plan["instances"]:
        found[Path(instance["unit_path"])] = FILE
    if gateway := plan.get("gateway"):
        # HAProxy, too, runs as a user of its own; the folder's contents are for it alone.
        found[Path(gateway["folder"]).parent] = FOLDER
    return found


def folders_above(path, root):
    """The folders above a path, from the outermost one that is Corral's."""
    outer = root.parent if root.parent.name == OWN else root
    above = [folder for folder in Path(path).parents if outer in (folder, *folder.parents)]
    return dict.fromkeys([outer, *above], FOLDER)


def shards(plan):
    return [shard["path"] for shard in plan["shards"]]


def texts(plan):
    """Files of generations that a server reads."""
    measured = [instance["gate"]["perplexity"] for instance in plan["instances"]]
    return [
        *(instance["chat_template_path"] for instance in plan["instances"]),
        *(one["text_path"] for one in measured if one),
    ]


def hide_nothing():
    """Set the helper's umask: with root's own, servers might not be able to read their files."""
    os.umask(UMASK)
