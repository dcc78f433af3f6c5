"""What servers must be able to read, each of them a user of its own.

Its modes are set, never inherited: a root whose umask hides everything makes the same host.
"""

import os
import stat
from pathlib import Path

UMASK = 0o022
FOLDER = PROGRAM = 0o755
FILE = 0o644
EVERYBODY = 0o005
# Parts of a release that are run or loaded.
RUN = ("bin", "lib")
OWN = "corral"


def open_folder(path):
    """Make a folder and what is missing above it, for everybody to read."""
    missing = [one for one in (path, *path.parents) if not one.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        folder.chmod(FOLDER)


def open_release(folder):
    """Each file and folder of a release, which programs of other users run from here on."""
    for path, mode in release_modes(folder):
        path.chmod(mode)


def release_modes(folder):
    yield folder, FOLDER
    for path in (one for one in folder.rglob("*") if not one.is_symlink()):
        runs = path.relative_to(folder).parts[0] in RUN
        yield path, FOLDER if path.is_dir() else PROGRAM if runs else FILE


def closed(plan):
    """What is here of a plan, and other users cannot read. Changes nothing."""
    return [str(path) for path, mode in wanted(plan).items() if is_closed(path, mode)]


def heal(plan):
    """Let everybody read it; gives what was closed."""
    found = [(path, mode) for path, mode in wanted(plan).items() if is_closed(path, mode)]
    for path, mode in found:
        path.chmod(stat.S_IMODE(path.stat().st_mode) | mode)
    return [str(path) for path, _ in found]


def is_closed(path, mode):
    needed = mode & EVERYBODY
    return path.exists() and path.stat().st_mode & needed != needed


def wanted(plan):
    """Path -> mode of all that servers of a plan read, where it is or will be."""
    paths, found = plan["paths"], {}
    engines, state = Path(paths["engines"]), Path(paths["state"])
    for release in [*plan["releases"], *plan.get("builds", ())]:
        found.update(way(release["folder"], engines))
        found.update(release_modes(Path(release["folder"])))
    for path in filter(None, [*shards(plan), *texts(plan)]):
        found.update({**way(path, state), Path(path): FILE})
    for instance in plan["instances"]:
        found[Path(instance["unit_path"])] = FILE
    if gateway := plan.get("gateway"):
        # HAProxy is a user of its own as well; what lies in there is for it alone.
        found[Path(gateway["folder"]).parent] = FOLDER
    return found


def way(path, root):
    """The folders above a path, from the outermost one that is Corral's."""
    outer = root.parent if root.parent.name == OWN else root
    above = [folder for folder in Path(path).parents if outer in (folder, *folder.parents)]
    return dict.fromkeys([outer, *above], FOLDER)


def shards(plan):
    return [shard["path"] for shard in plan["shards"]]


def texts(plan):
    """Files of generations that a server is given."""
    measured = [instance["gate"]["perplexity"] for instance in plan["instances"]]
    return [
        *(instance["chat_template_path"] for instance in plan["instances"]),
        *(one["text_path"] for one in measured if one),
    ]


def hide_nothing():
    """What a root's umask would hide is what servers could not read."""
    os.umask(UMASK)
