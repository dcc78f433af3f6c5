"""A user for one job: what an archive brings runs as nobody that owns anything here.

systemd's table of user ids leaves 65520 to 65533 to nobody (UIDS-GIDS.md), so no account, unit or
container has one. A process of such a user can read what all may read, and write only its home.
"""

import contextlib
import fcntl
import os
import signal
import tempfile
from pathlib import Path

from corral_host.system.commands import HostError
from corral_host.system.locks import lock_file, take

USERS = range(65520, 65533)
# One that is always the same, as what it owns stays from one build to the next.
BUILD_USER = 65533
# Not among what activations leave for each other in /run/corral.
TAKEN = Path("/run/corral-users")


@contextlib.contextmanager
def home_of_nobody():
    """A private folder of a free user's, gone afterwards with every process of that user.

    Who is not root keeps to itself: there is nothing to give up.
    """
    with tempfile.TemporaryDirectory(prefix="corral-") as home:
        if os.geteuid() != 0:
            yield home
            return
        with free_user() as user:
            os.chown(home, user, user)
            try:
                yield home
            finally:
                end_all(user)


@contextlib.contextmanager
def free_user():
    """One without a process, whom nobody else takes meanwhile: the end of one job ends no other."""
    taken = {user for _, user in processes()}
    for user in (one for one in USERS if one not in taken):
        with lock_file(TAKEN / f"{user}.lock") as lock:
            if take(lock, fcntl.LOCK_EX, 0):
                yield user
                return
    raise HostError(
        f"every user from {USERS[0]} to {USERS[-1]} has a process or a job",
        "see `ps -eo uid,pid,args`, end what is left of other releases, deploy again",
    )


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


def living(user):
    """Processes of a user's, but those that ended and wait for their parent to notice."""
    return [pid for pid in ours(user) if not has_ended(pid)]


def ours(user):
    """Processes of a user's that a job of this unit began, wherever they went in the background.

    A container may have the same user; what it runs has a control group of its own, which
    nobody but root leaves.
    """
    own = control_group("self")
    return [pid for pid, owner in processes() if owner == user and control_group(pid) == own]


def control_group(pid):
    try:
        return Path(f"/proc/{pid}/cgroup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None


def has_ended(pid):
    try:
        # The name in parentheses may hold anything; the state follows it (proc(5)).
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def end_all(user):
    """Also what went into the background."""
    for pid in ours(user):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
