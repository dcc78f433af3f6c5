"""The user that builds: it owns the sources, the objects and the compiler cache, and nothing else.

An engine's author decides what its build runs. So it runs as a user of its own, who can read only
what everybody may read. Root takes the result when no process of that user is left.
"""

import contextlib
import os
import shutil
import stat
import time
from pathlib import Path

from corral_host.system.commands import HostError
from corral_host.system.modes import EVERYBODY, folders_above, is_closed, open_folder
from corral_host.system.unprivileged import BUILD_USER, end_all, living

SOURCE = "source"
HOME = "home"
# Prefix of the folder beside a release in which a Python environment is made.
ENVIRONMENT = ".uv-"
CLOSED, OPEN = 0o700, 0o755
# In a sticky folder no user renames or removes files of another: the locks stay root's.
CACHE = 0o1775
LOCKS = "locks"
END_SECONDS = 30
# Safe here: git runs as the build user, so hooks in these repositories gain nothing.
GIT_CONFIG = "[safe]\n\tdirectory = *\n"


def build_user():
    """Id of the build user; without root, the caller, who has no privileges to give up."""
    return os.geteuid() or BUILD_USER


def work_folder(release):
    return Path(release["state"]) / "build" / release["engine"]


def objects_folder(release):
    return work_folder(release) / release["key"]


@contextlib.contextmanager
def build_home(release):
    """A home of the build user, who owns sources, objects and cache; ends the user's processes.

    The caller must hold the lock of builds: a host has one such user. Files that earlier versions
    and killed builds left are used, whoever owned them.
    """
    work = work_folder(release)
    end_build_user()
    open_folder(work)
    let_in(work, release["state"])
    close_others(work)
    close_environments(release)
    for folder in (work / SOURCE, objects_folder(release)):
        folder.mkdir(exist_ok=True)
        give_tree(folder)
    give_cache(Path(release["compiler_cache"]))
    home = fresh_home(work)
    try:
        yield home
    finally:
        end_build_user()
        shutil.rmtree(home)
        work.chmod(CLOSED)


def end_build_user():
    """Kill the user's processes, or raise HostError: root must not take files that still change.

    Kills repeatedly, as a process may just be starting another one.
    """
    deadline = time.monotonic() + END_SECONDS
    while os.geteuid() == 0 and (left := living(BUILD_USER)):
        if time.monotonic() > deadline:
            raise HostError(
                f"processes {', '.join(map(str, left))} of the build user {BUILD_USER} do not end",
                f"see `ps -u {BUILD_USER}`, run the deploy again",
            )
        end_all(BUILD_USER)
        time.sleep(0.02)


def close_others(work):
    """Let an engine's build enter its own folder, and not those of other engines."""
    for folder in (one for one in work.parent.iterdir() if one.is_dir()):
        folder.chmod(OPEN if folder == work else CLOSED)


def close_environments(release):
    """Close folders of Python environments, which a killed job left open."""
    for folder in Path(release["folder"]).parent.parent.glob(f"*/{ENVIRONMENT}*"):
        folder.chmod(CLOSED)


def fresh_home(work):
    home = work / HOME
    if home.exists():
        shutil.rmtree(home)
    home.mkdir(mode=0o700)
    (home / ".gitconfig").write_text(GIT_CONFIG)
    give_tree(home)
    return home


def let_in(path, root):
    """Open the folders above a path that a strict umask closed."""
    for folder in (one for one in folders_above(path, Path(root)) if is_closed(one, OPEN)):
        folder.chmod(stat.S_IMODE(folder.stat().st_mode) | EVERYBODY)


def give_cache(cache):
    open_folder(cache)
    let_in(cache, cache)
    if os.geteuid() == 0:
        os.chown(cache, 0, BUILD_USER)
        cache.chmod(CACHE)
    give_below(cache, but=(LOCKS,))


def give_tree(folder):
    give_below(folder)
    os.chown(folder, build_user(), build_user() if os.geteuid() == 0 else -1)


def give_below(folder, but=()):
    """Give all that is below ``folder`` to the build user; links are not followed.

    The user must have no process. A file with several hard links may be somebody else's: its name
    is removed.
    """
    if os.geteuid() != 0:
        return
    for path, folders, files, handle in os.fwalk(folder):
        if Path(path) == folder:
            folders[:] = [name for name in folders if name not in but]
        for name in (*folders, *files):
            give(name, handle)


def give(name, handle):
    found = os.stat(name, dir_fd=handle, follow_symlinks=False)
    if found.st_uid == BUILD_USER:
        return
    if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
        os.unlink(name, dir_fd=handle)
    else:
        os.chown(name, BUILD_USER, BUILD_USER, dir_fd=handle, follow_symlinks=False)
