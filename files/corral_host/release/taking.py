"""Take over what a build made: root copies plain files, and trusts nothing else about them."""

import os
import shutil
import stat
from pathlib import Path

from corral_shared.names import file_name_problem
from corral_shared.text import printable_line

from corral_host.release.build_user import build_user
from corral_host.system.commands import HostError, sync
from corral_host.system.modes import PROGRAM, open_folder

PARTS = ("bin", "lib")


def take(release, made, staging):
    """Copy programs and libraries from ``made``; the build user must have no process.

    Raises HostError for anything that is not a plain file of that user with one hard link: root
    could read the target of a link that the user could not.
    """
    files = [(part, name) for part in PARTS for name in names(release, made, part)]
    most = release["limits"]["unpacked_bytes"]
    if sum(size(release, made / part / name) for part, name in files) > most:
        raise refused(release, made, f"is larger than {most >> 30} GiB")
    for part in PARTS:
        open_folder(staging / part)
    for part, name in files:
        copy(made / part / name, staging / part / name)


def names(release, made, part):
    for folder in (made, made / part):
        if not stat.S_ISDIR(checked_stat(release, folder).st_mode):
            raise refused(release, folder, "is not a folder")
    found = sorted(os.listdir(made / part))
    if part == "bin" and found != sorted(release["artifact"]["targets"]):
        raise refused(release, made / part, f"holds {', '.join(found) or 'nothing'}")
    for name in found:
        if file_name_problem(name):
            raise refused(release, made / part / name, "has a name that no release has")
    most = release["limits"]["unpacked_files"]
    if len(found) > most:
        raise refused(release, made / part, f"holds more than {most} files")
    return found


def size(release, path):
    found = checked_stat(release, path)
    if not stat.S_ISREG(found.st_mode):
        raise refused(release, path, "is not a plain file")
    if found.st_nlink != 1:
        raise refused(release, path, "has more than one name")
    return found.st_size


def checked_stat(release, path):
    """lstat() of a path that exists and belongs to the build user; does not follow links."""
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
        "check what the engine's commit and patches do, run the deploy again",
    )
