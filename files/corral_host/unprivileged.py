"""A user for one job: what an archive brings runs as nobody that owns anything here.

systemd's table of user ids leaves 65520 to 65533 to nobody (UIDS-GIDS.md), so no account, unit or
container has one. A process of such a user can read what all may read, and write only its home.
"""

import contextlib
import os
import signal
import tempfile
from pathlib import Path

from corral_host.tools import HostError

USERS = range(65520, 65534)


@contextlib.contextmanager
def home_of_nobody():
    """A private folder of a free user's, gone afterwards with every process of that user.

    Who is not root keeps to itself: there is nothing to give up.
    """
    with tempfile.TemporaryDirectory(prefix="corral-") as home:
        if os.geteuid() != 0:
            yield home
            return
        user = free_user()
        os.chown(home, user, user)
        try:
            yield home
        finally:
            end_all(user)


def free_user():
    taken = {user for _, user in processes()}
    free = [user for user in USERS if user not in taken]
    if not free:
        raise HostError(
            f"every user from {USERS[0]} to {USERS[-1]} has a process. "
            "Next: see `ps -eo uid,pid,args`, end what is left of other releases, deploy again"
        )
    return free[0]


def as_owner_of(home):
    """Arguments of Popen for a program that runs as the owner of its home, in no other group."""
    user = os.stat(home).st_uid
    return {} if user == os.geteuid() else {"user": user, "group": user, "extra_groups": ()}


def give(path, home):
    """A file for the owner of a home."""
    owner = os.stat(home)
    os.chown(path, owner.st_uid, owner.st_gid)


def processes():
    """Pid and user of every process."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield int(folder.name), folder.stat().st_uid


def end_all(user):
    """Also what went into the background."""
    for pid, owner in processes():
        if owner == user:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
