"""What a build made becomes root's: copies of plain files, of which nothing else is believed."""

import os
import shutil
import stat
from pathlib import Path

from corral_shared.names import file_name_problem
from corral_shared.text import printable_line

from corral_host.release.archive import MOST_BYTES, MOST_FILES
from corral_host.release.build_user import build_user
from corral_host.system.commands import HostError, sync
from corral_host.system.modes import PROGRAM, open_folder

PARTS = ("bin", "lib")


def take(release, made, staging):
    """Programs and libraries from ``made``, for when the user has no process.

    Raises HostError for anything that is not a plain file of the user's, with one name: root
    could read what a link leads to, and the user could not.
    """
    files = [(part, name) for part in PARTS for name in names(release, made, part)]
    if sum(size(release, made / part / name) for part, name in files) > MOST_BYTES:
        raise refused(release, made, f"is larger than {MOST_BYTES >> 30} GiB")
    for part in PARTS:
        open_folder(staging / part)
    for part, name in files:
        copy(made / part / name, staging / part / name)


def names(release, made, part):
    for folder in (made, made / part):
        if not stat.S_ISDIR(looked_at(release, folder).st_mode):
            raise refused(release, folder, "is no folder")
    found = sorted(os.listdir(made / part))
    if part == "bin" and found != sorted(release["targets"]):
        raise refused(release, made / part, f"holds {', '.join(found) or 'nothing'}")
    for name in found:
        if file_name_problem(name):
            raise refused(release, made / part / name, "has a name that no release has")
    if len(found) > MOST_FILES:
        raise refused(release, made / part, f"holds more than {MOST_FILES} files")
    return found


def size(release, path):
    found = looked_at(release, path)
    if not stat.S_ISREG(found.st_mode):
        raise refused(release, path, "is no plain file")
    if found.st_nlink != 1:
        raise refused(release, path, "has more than one name")
    return found.st_size


def looked_at(release, path):
    """Of the thing itself, never of what a link leads to."""
    try:
        found = os.lstat(path)
    except FileNotFoundError as error:
        raise refused(release, path, "is missing") from error
    if found.st_uid != build_user():
        raise refused(release, path, f"belongs to user {found.st_uid}")
    return found


def copy(path, target):
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as source, open(target, "xb") as file:
        os.fchmod(file.fileno(), PROGRAM)
        shutil.copyfileobj(source, file)
    sync(target)


def refused(release, path, why):
    shown = printable_line(Path(path))
    return HostError(
        f"{release['engine']} {release['key']}: its build left {shown}, which {why}. Nothing was "
        "installed",
        "see what the engine's commit and patches do, run the deploy again",
    )
