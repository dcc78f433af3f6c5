"""A user for one job: programs from an archive run as a user that owns nothing on this host.

systemd's table of user ids leaves 65520 to 65533 unused (UIDS-GIDS.md), so no account, unit or
container has one. A process of such a user reads what everybody may read, and writes only to its
home.
"""

import contextlib
import fcntl
import json
import os
import signal
import tempfile
from pathlib import Path

from corral_host.system.commands import HostError
from corral_host.system.locks import lock_file, take

USERS = range(65520, 65533)
# Always the same user, as what it owns stays from one build to the next.
BUILD_USER = 65533
# Apart from /run/corral, where activations leave files for each other.
TAKEN = Path("/run/corral-users")
# Static records of users and groups, which nss-systemd reads.
RECORDS = Path("/run/userdb")


@contextlib.contextmanager
def home_of_nobody(named=False):
    """A private folder of a free user; removed afterwards, and the user's processes are killed.

    Without root, the folder belongs to the caller, who has no privileges to give up. ``named``:
    whether the user has a name meanwhile, in systemd's records (nss-systemd(8)).
    """
    with tempfile.TemporaryDirectory(prefix="corral-") as home:
        if os.geteuid() != 0:
            yield home
            return
        with free_user() as user, contextlib.ExitStack() as stack:
            if named:
                stack.enter_context(name_of(user))
            os.chown(home, user, user)
            try:
                yield home
            finally:
                end_all(user)


@contextlib.contextmanager
def free_user():
    """A user without a process, locked meanwhile, so that the end of one job kills no other job."""
    taken = {user for _, user in processes()}
    for user in (one for one in USERS if one not in taken):
        with lock_file(TAKEN / f"{user}.lock") as lock:
            if take(lock, fcntl.LOCK_EX, 0):
                yield user
                return
    raise HostError(
        f"every user from {USERS[0]} to {USERS[-1]} has a process or a job",
        "find processes that other releases left (`ps -eo uid,pid,args`), kill them, deploy again",
    )


@contextlib.contextmanager
def name_of(user):
    """A name for a user and its group, until the end of the block."""
    name, records = f"corral-{user}", []
    fields = {
        "user": {"userName": name, "uid": user, "gid": user, "homeDirectory": "/"},
        "group": {"groupName": name, "gid": user},
    }
    RECORDS.mkdir(mode=0o755, parents=True, exist_ok=True)
    for kind, record in fields.items():
        for path in (RECORDS / f"{name}.{kind}", RECORDS / f"{user}.{kind}"):
            path.write_text(json.dumps(record))
            records.append(path)
    try:
        yield
    finally:
        for path in records:
            path.unlink(missing_ok=True)


def as_owner_of(home):
    """Arguments of Popen for a program that runs as the owner of its home, in no other group."""
    user = os.stat(home).st_uid
    return {} if user == os.geteuid() else {"user": user, "group": user, "extra_groups": ()}


def give(path, home):
    """Give a file to the owner of a home."""
    owner = os.stat(home)
    os.chown(path, owner.st_uid, owner.st_gid)


def processes():
    """Pid and user of every process."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield int(folder.name), folder.stat().st_uid


def living(user):
    """Processes of a user, without zombies."""
    return [pid for pid in ours(user) if not has_ended(pid)]


def ours(user):
    """Processes of a user that a job of this unit started, in the background too.

    A container may use the same user id; its processes have their own control group, which only
    root can leave.
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
        # The name in parentheses may contain anything; the state follows it (proc(5)).
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def end_all(user):
    """Kill all processes of a user, background ones too."""
    for pid in ours(user):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
